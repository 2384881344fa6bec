"""Where nnU-Net looks: the variables of a trial's own results folder, and what a cascade needs of its previous one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from study.datasets import PREPARED_VARIABLE, RAW_VARIABLE, DataPaths, PreparedDataset, Split
from study.errors import LedgerError, MissingDataError
from study.ledger import TrialFolder
from study.plan import NetworkPlan
from study.prediction import RESULTS_VARIABLE


def nnunet_variables(folder: TrialFolder, data: DataPaths) -> dict[str, str]:
    """Environment variables under which stock nnU-Net finds a trial's data and model.

    nnU-Net gives every training of one dataset, plan and configuration the same folder, so each trial has its own root.
    """
    variables = {PREPARED_VARIABLE: str(data.preprocessed), RESULTS_VARIABLE: str(folder.results_path.resolve())}
    if data.raw is not None:
        variables[RAW_VARIABLE] = str(data.raw)
    return variables


@contextmanager
def nnunet_environment(folder: TrialFolder, data: DataPaths, *, processes: int) -> Iterator[None]:
    """Run a block under a trial's variables, with so many processes for what nnU-Net spawns."""
    changed = {
        **nnunet_variables(folder, data),
        "nnUNet_def_n_proc": str(processes),
        "nnUNet_n_proc_DA": "1",
    }
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def previous_stage_folder(dataset: PreparedDataset, plans: str, configuration: str, given: Path | None) -> Path | None:
    """The previous stage's segmentations that a cascade reads; None for any other configuration.

    Raises:
        LedgerError: a cascade without them.
    """
    previous = dataset.plan(plans, configuration).previous_stage
    if previous is None:
        return None
    results = os.environ.get(RESULTS_VARIABLE)
    stock = f"nnUNetTrainer__{plans}__{previous}"
    default = Path(results) / dataset.name / stock / "predicted_next_stage" / configuration if results else None
    folder = given or default
    if folder is None or not folder.is_dir():
        raise _needs_previous_stage(configuration, previous, folder)
    return folder.resolve()


def check_previous_stage(plan: NetworkPlan, split: Split, folder: Path | None) -> None:
    """Raise StudyError when a cascade lacks the previous stage's segmentation of a case of its fold."""
    if plan.previous_stage is None:
        return
    if folder is None:
        raise _needs_previous_stage(plan.configuration, plan.previous_stage, None)
    there = {path.stem for path in folder.iterdir()}
    missing = [case for case in (*split.training, *split.validation) if case not in there]
    if missing:
        raise MissingDataError(
            f"{len(missing)} cases have no segmentation in {folder}, the first is {missing[0]}; "
            f"train and validate all folds of {plan.previous_stage} first"
        )


def _needs_previous_stage(configuration: str, previous: str, received: Path | None) -> LedgerError:
    return LedgerError(
        f"{configuration} is a cascade and needs the segmentations of {previous}: received {received or 'none'}; "
        f"give --previous-stage DIR, the folder predicted_next_stage/{configuration} of that training"
    )
