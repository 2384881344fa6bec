"""A cascade from trials of our own: what the trials of every fold of its previous stage predicted, in one folder.

nnU-Net's final validation of a configuration that has a next stage leaves the segmentations of its validation cases for
it. Trials of all folds together have every case once, predicted by a network that was not trained on it, and a cascade
needs them all. They are gathered as links beside the trials, so what was trained stays the only copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from study.datasets import PreparedDataset
from study.errors import LedgerError
from study.ledger import Ledger
from study.plain import sha256_of_json
from study.records import TrialSpec
from study.trial_folder import TrialFolder

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
