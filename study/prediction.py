"""The stock nnU-Net command that predicts with a trial's model, and the variables that show nnU-Net its way."""

from __future__ import annotations

import shlex
from pathlib import Path

from study.ledger import TrialFolder
from study.records import TrialSpec

RESULTS_VARIABLE = "nnUNet_results"
EXTENSION_VARIABLE = "nnUNet_extTrainer"
EXTENSION_FOLDER = Path(__file__).resolve().parent / "nnunet_ext"
TRAINER_NAME = "nnUNetTrainerPGPS"


def predict_command(folder: TrialFolder, spec: TrialSpec) -> str:
    """The stock nnU-Net command that predicts with a trial's model, on the kind of device that trained it."""
    results, extension = shlex.quote(str(folder.results_path.resolve())), shlex.quote(str(EXTENSION_FOLDER))
    attempts = folder.attempts()
    device = f" -device {attempts[-1].device}" if attempts else ""
    return (
        f"{RESULTS_VARIABLE}={results} {EXTENSION_VARIABLE}={extension} "
        f"nnUNetv2_predict -i INPUT -o OUTPUT -d {spec.dataset} -tr {TRAINER_NAME} -p {spec.plans} "
        f"-c {spec.configuration} -f {spec.fold}{device}"
    )
