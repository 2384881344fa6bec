"""What a reader of a trial's Dice must know of its data and curriculum, decided before anything is trained.

A class that is in no validation case has no Dice: a network that finds none of it would be given "not a number", one
that is wrong about it 0. The mean is over the classes that exist, see `results`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study.datasets import PreparedDataset
from study.errors import DataIntegrityError
from study.records import TrialSpec
from study.stage_table import shortfalls


def absent_classes(trainer: Any, references: Sequence[Path]) -> list[str]:
    """Foreground classes or regions, as nnU-Net's summary names them, that are in none of the reference segmentations.

    Reads until all have been seen, usually one or two files.

    Raises:
        DataIntegrityError: none is there, so a training would have no Dice.
    """
    import numpy as np

    labels, reader = trainer.label_manager, trainer.plans_manager.image_reader_writer_class()
    classes = list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    missing = list(classes)
    for path in references:
        if not missing:
            break
        values = np.unique(reader.read_seg(str(path))[0])
        missing = [name for name in missing if not np.isin(values, name).any()]
    if len(missing) == len(classes):
        raise DataIntegrityError(
            f"no validation case of this fold shows any foreground class ({len(references)} reference segmentations, "
            f"the first is {references[0]}): there would be no Dice; choose another fold or correct splits_final.json"
        )
    return [str(name) for name in missing]


def remarks(spec: TrialSpec, trainer: Any, dataset: PreparedDataset) -> tuple[str, ...]:
    """What a reader of the trial's Dice must know of its data and curriculum.

    Raises:
        DataIntegrityError: there would be no Dice.
    """
    split, fold = dataset.split(spec.fold), f"fold {spec.fold}"
    said = []
    absent = absent_classes(trainer, dataset.references(split.validation))
    if absent:
        said.append(f"class {', '.join(absent)} is in no validation case of {fold}: Dice is the mean of the others")
    if split.overlap:
        number = f"{len(split.overlap)} of {len(split.validation)} validation cases of {fold}"
        said.append(f"{number} are training cases too (the first is {split.overlap[0]}): Dice is too high")
    return (*said, *shortfalls(spec.curriculum, spec.axes))
