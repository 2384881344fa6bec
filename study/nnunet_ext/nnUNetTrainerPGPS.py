"""What stock nnU-Net imports when `nnUNet_extTrainer` names this folder: the trainer's class, nothing else."""

from study.nnunet.trainer import nnUNetTrainerPGPS

__all__ = ["nnUNetTrainerPGPS"]
