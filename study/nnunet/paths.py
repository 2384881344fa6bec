"""Where nnU-Net looks: the variables of a trial's own results folder, and what a cascade needs of its previous one.

nnU-Net's final validation of a configuration that has a next stage leaves the segmentations of its validation cases for
it. Trials of all folds together have every case once, predicted by a network that was not trained on it, and a cascade
needs them all. They are gathered as links beside the trials, so what was trained stays the only copy.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.common.errors import InvalidInputError, LedgerError, MissingDataError
from study.common.serialize import sha256_of_json
from study.nnunet.datasets import NNUNET_PREFIX, PREPARED_VARIABLE, RAW_VARIABLE, DataPaths, PreparedDataset, Split
from study.nnunet.plans import NetworkPlan
from study.store.ledger import Ledger
from study.store.prediction import RESULTS_VARIABLE
from study.store.trial_folder import TrialFolder

FOLDER = "predicted_next_stage"
# Parts of a trial's identity that its siblings on other folds differ in.
_OF_A_FOLD = ("fold", "split_sha256", "data")


@contextmanager
def nnunet_environment(folder: TrialFolder, data: DataPaths, *, processes: int) -> Iterator[None]:
    """Run a block under a trial's variables and none else of nnU-Net's, with so many processes for what it spawns.

    nnU-Net gives every training of one dataset, plan and configuration the same folder, so each trial has its own root.
    """
    before = _taken_away()
    os.environ |= {
        PREPARED_VARIABLE: str(data.preprocessed),
        RESULTS_VARIABLE: str(folder.results_path.resolve()),
        **({RAW_VARIABLE: str(data.raw)} if data.raw is not None else {}),
        "nnUNet_def_n_proc": str(processes),
        "nnUNet_n_proc_DA": "1",
    }
    try:
        yield
    finally:
        _taken_away()
        os.environ.update(before)


def _taken_away() -> dict[str, str]:
    return {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(NNUNET_PREFIX)}


def previous_stage_folder(dataset: PreparedDataset, plans: str, configuration: str, given: Path | None) -> Path | None:
    """The previous stage's segmentations that a cascade reads; None for any other configuration.

    `given` is a folder of them, a study, or one trial of a study, which stands for its siblings on the other folds too;
    None is where nnU-Net's own commands leave them.

    Raises:
        InvalidInputError: one is given and not needed.
        LedgerError: a cascade without them, or a study with finished trials of no point at that stage, or of several.
    """
    previous = dataset.plan(plans, configuration).previous_stage
    if previous is None:
        if given is not None:
            legal = f"left out: {configuration} of {plans} is no cascade"
            raise InvalidInputError(field="--previous-stage", received=str(given), legal=legal)
        return None
    results = os.environ.get(RESULTS_VARIABLE)
    stock = f"nnUNetTrainer__{plans}__{previous}"
    folder = given or (Path(results) / dataset.name / stock / FOLDER / configuration if results else None)
    if folder is None or not folder.is_dir():
        raise _needs_previous_stage(configuration, previous, folder)
    folder = folder.resolve()
    study = next((root for root in (folder, folder.parent.parent) if (root / "study.json").exists()), None)
    return folder if study is None else _gathered(study, folder, (dataset.name, plans, previous), configuration)


def _gathered(study: Path, given: Path, wanted: tuple[str, str, str], configuration: str) -> Path:
    """Links to the segmentations of one point's finished trials, in a folder of the study."""
    points = defaultdict(list)
    for trial in Ledger.open(study).trials():
        spec = trial.spec()
        if (spec.dataset, spec.plans, spec.configuration) == wanted and trial.result():
            of_point = {name: value for name, value in spec.identity().items() if name not in _OF_A_FOLD}
            points[sha256_of_json(of_point)].append(trial)
    found = [
        (p, trials) for p, trials in points.items() if study == given or given.name in {t.trial_id for t in trials}
    ]
    if len(found) != 1:
        names = ", ".join(str(trials[0].path) for _, trials in found)
        several = f"trials of {len(found)} points of {wanted[2]}: name one of a trial, {names}"
        what = several if found else f"no finished trial of {', '.join(wanted)}"
        raise LedgerError(f"--previous-stage {given} has {what}")
    [(point, trials)] = found
    folder = study / FOLDER / f"{configuration}_{point[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (path for trial in trials for path in trial.results_path.glob(f"*/*/{FOLDER}/{configuration}/*")):
        link, target = folder / path.name, Path(os.path.relpath(path, folder))
        if not link.is_symlink() or link.readlink() != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    return folder


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
        f"{FOLDER}/{configuration}"
    )
