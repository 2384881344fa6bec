"""Where nnU-Net looks: the variables of a trial's own results folder, and what a cascade needs of its previous one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.cascade import gathered
from study.datasets import NNUNET_PREFIX, PREPARED_VARIABLE, RAW_VARIABLE, DataPaths, PreparedDataset, Split
from study.errors import LedgerError, MissingDataError
from study.plan import NetworkPlan
from study.prediction import RESULTS_VARIABLE
from study.trial_folder import TrialFolder


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
    """Run a block under a trial's variables and none else of nnU-Net's, with so many processes for what it spawns."""
    before = _taken_away()
    os.environ.update(nnunet_variables(folder, data), nnUNet_def_n_proc=str(processes), nnUNet_n_proc_DA="1")
    try:
        yield
    finally:
        _taken_away()
        os.environ.update(before)


def _taken_away() -> dict[str, str]:
    """Take all of nnU-Net's variables out of the environment."""
    return {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(NNUNET_PREFIX)}


def previous_stage_folder(dataset: PreparedDataset, plans: str, configuration: str, given: Path | None) -> Path | None:
    """The previous stage's segmentations that a cascade reads; None for any other configuration.

    Raises:
        LedgerError: a cascade without them, or a study with several candidates; see `cascade.gathered`.
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
    return gathered(folder.resolve(), dataset, plans, previous, configuration)


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
        f"give --previous-stage DIR, a study with finished trials of all of its folds, or nnU-Net's own folder "
        f"predicted_next_stage/{configuration}"
    )
