"""The stock nnU-Net command that predicts with a trial's model, and the variables that show nnU-Net its way."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from study.common.errors import InvalidInputError
from study.store.records import AttemptHeader
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

RESULTS_VARIABLE = "nnUNet_results"
EXTENSION_VARIABLE = "nnUNet_extTrainer"
EXTENSION_FOLDER = Path(__file__).resolve().parents[1] / "nnunet_ext"
TRAINER_NAME, STOCK_TRAINER = "nnUNetTrainerPGPS", "nnUNetTrainer"
# nnU-Net's in the final validation of a training, so that the same model gives the same Dice.
TILE_STEP_SIZE, CHECKPOINT = 0.5, "checkpoint_final.pth"
# Of what an attempt read, when it was a cascade's.
PREVIOUS_STAGE = "segmentations of the previous stage of"


def predict_command(folder: TrialFolder, spec: TrialSpec, attempts: Sequence[AttemptHeader] | None = None) -> str:
    """The stock nnU-Net command that predicts with a trial's model, on the kind of device that trained it.

    Args:
        folder: of the trial.
        spec: its specification.
        attempts: its attempts, where they have been read.
    """
    attempts = folder.attempts() if attempts is None else attempts
    source = folder.imported()
    if source is not None:
        results = shlex.quote(str(Path(source.path).parents[2]))
        return f"{RESULTS_VARIABLE}={results} {stock_command(spec, [spec.fold], None)} -tr {source.trainer}"
    return prediction_with(
        results=str(folder.results_path.resolve()),
        extension=shlex.quote(str(EXTENSION_FOLDER)),
        dataset=spec.dataset,
        plans=spec.plans,
        configuration=spec.configuration,
        fold=spec.fold,
        mirroring=spec.training.predicts_mirrored,
        device=attempts[-1].device if attempts else None,
        cascade=any(subject.startswith(PREVIOUS_STAGE) for one in attempts for subject in one.inputs),
    )


def prediction_with(
    *,
    results: str,
    extension: str,
    dataset: str,
    plans: str,
    configuration: str,
    fold: int,
    mirroring: bool,
    device: str | None,
    cascade: bool,
) -> str:
    """The same for a model named by its parts.

    Args:
        results: the trial's `nnUNet_results`.
        extension: the folder of the trainer's class, as a shell reads it.
        dataset: nnU-Net's name.
        plans: their name.
        configuration: of those plans.
        fold: of the trial.
        mirroring: whether its validation predicted with mirroring, see `TrainingSettings.predicts_mirrored`.
        device: `cpu` or `cuda`; None leaves it open.
        cascade: whether it reads the previous stage's segmentations, PREVIOUS.
    """
    names = [shlex.quote(name) for name in (dataset, plans, configuration)]
    previous = " -prev_stage_predictions PREVIOUS" if cascade else ""
    return (
        f"{RESULTS_VARIABLE}={shlex.quote(results)} {EXTENSION_VARIABLE}={extension} "
        f"nnUNetv2_predict -i INPUT -o OUTPUT{previous} -d {names[0]} "
        f"-tr {TRAINER_NAME} -p {names[1]} -c {names[2]} -f {fold} "
        f"-step_size {TILE_STEP_SIZE} -chk {CHECKPOINT}{'' if mirroring else ' --disable_tta'}"
        f"{f' -device {shlex.quote(device)}' if device else ''}"
    )


def stock_command(spec: TrialSpec, folds: Sequence[int], previous_stage: str | None) -> str:
    """The command that predicts with an exported model, in an installation without this project.

    Args:
        spec: of one of its trials.
        folds: that the model has; nnU-Net's own default are all five.
        previous_stage: of a cascade, else None.

    Raises:
        InvalidInputError: its network has layers of this project.
    """
    if spec.training.normalization == "group":
        legal = "a model of nnU-Net's and torch's layers alone: instance, batch"
        remedy = "predict with this project installed, by the command that `status` prints"
        raise InvalidInputError(field="normalization", received="group", legal=legal, remedy=remedy)
    names = [shlex.quote(name) for name in (spec.dataset, spec.plans, spec.configuration)]
    return (
        f"nnUNetv2_predict -i INPUT -o OUTPUT -d {names[0]} -p {names[1]} -c {names[2]} -f {' '.join(map(str, folds))}"
        f"{'' if previous_stage is None else f' -prev_stage_predictions OUTPUT_OF_{previous_stage}'}"
        f"{'' if spec.training.predicts_mirrored else ' --disable_tta'}"
    )


def previous_command(spec: TrialSpec, previous_stage: str) -> str:
    """What a cascade's `stock_command` comes after: it predicts with a model of the previous stage."""
    names = [shlex.quote(name) for name in (spec.dataset, spec.plans, previous_stage)]
    return f"nnUNetv2_predict -i INPUT -o OUTPUT_OF_{previous_stage} -d {names[0]} -p {names[1]} -c {names[2]} -f FOLDS"
