"""Where nnU-Net looks: the variables of a trial's own results folder, and what a cascade needs of its previous one.

A cascade from trials of our own: what the trials of every fold of its previous stage predicted, in one folder.

nnU-Net's final validation of a configuration that has a next stage leaves the segmentations of its validation cases for
it. Trials of all folds together have every case once, predicted by a network that was not trained on it, and a cascade
needs them all. They are gathered as links beside the trials, so what was trained stays the only copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from study.common.errors import LedgerError, MissingDataError
from study.common.serialize import sha256_of_json
from study.nnunet.datasets import NNUNET_PREFIX, PREPARED_VARIABLE, RAW_VARIABLE, DataPaths, PreparedDataset, Split
from study.nnunet.plans import NetworkPlan
from study.store.ledger import Ledger
from study.store.prediction import RESULTS_VARIABLE
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

FOLDER = "predicted_next_stage"
# Parts of a trial's identity that its siblings on other folds differ in.
_OF_A_FOLD = ("fold", "split_sha256", "data")


def gathered(given: Path, dataset: PreparedDataset, plans: str, previous: str, configuration: str) -> Path:
    """The folder with a cascade's previous stage.

    Args:
        given: such a folder, a study, or one trial of a study, which stands for its siblings on the other folds too.
        dataset: prepared.
        plans: their name.
        previous: configuration of the previous stage.
        configuration: of the cascade.

    Raises:
        LedgerError: no finished trial of the previous stage is there, or trials of several points are.
    """
    study = next((folder for folder in (given, given.parent.parent) if (folder / "study.json").exists()), None)
    if study is None:
        return given
    wanted = (dataset.name, plans, previous)
    finished = [folder for folder in Ledger.open(study).trials() if _of(folder) == wanted and folder.result()]
    points: dict[str, list[TrialFolder]] = {}
    for folder in finished:
        points.setdefault(_point(folder.spec()), []).append(folder)
    if study != given:
        points = {point: members for point, members in points.items() if given.name in {f.trial_id for f in members}}
    if len(points) != 1:
        names = ", ".join(str(members[0].path) for members in points.values())
        several = f"trials of {len(points)} points of {previous}: name one of a trial, {names}"
        what = several if points else f"no finished trial of {dataset.name}, {plans}, {previous}"
        raise LedgerError(f"--previous-stage {given} has {what}")
    [(point, members)] = points.items()
    return _linked(study / FOLDER / f"{configuration}_{point[:12]}", _segmentations(members, configuration))


def _of(folder: TrialFolder) -> tuple[str, str, str]:
    spec = folder.spec()
    return spec.dataset, spec.plans, spec.configuration


def _point(spec: TrialSpec) -> str:
    return sha256_of_json({name: value for name, value in spec.identity().items() if name not in _OF_A_FOLD})


def _segmentations(members: Iterable[TrialFolder], configuration: str) -> list[Path]:
    return [path for folder in members for path in sorted(folder.results_path.glob(f"*/*/{FOLDER}/{configuration}/*"))]


def _linked(folder: Path, segmentations: Iterable[Path]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for path in segmentations:
        link, target = folder / path.name, Path(os.path.relpath(path, folder))
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return folder


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
        LedgerError: a cascade without them, or a study with several candidates; see `paths.gathered`.
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
