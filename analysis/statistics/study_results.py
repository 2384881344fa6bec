"""What every part of the analysis works on: the tables of studies, and their configurations as points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.statistics.intervals import with_intervals
from analysis.tables.frame import KEY, Tables
from analysis.tables.points import average_points
from analysis.tables.rows import FOREGROUND
from analysis.tables.sources import Grid, read, redrawn
from study.common.errors import check_choice
from study.store.audit import reading_many
from study.store.results import METRICS
from study.store.trial_folder import TrialFolder

BY_CLASS = ("dice", *METRICS)
"""Columns that trials and cases have, and cases by class."""


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """Studies, read and averaged.

    Attributes:
        tables: the four tidy tables.
        points: finished configurations, averaged over folds and seeds, in the columns of `columns.POINT_COLUMNS`.
        folders: that were read, in which trials' own files may be.
    """

    tables: Tables
    points: pd.DataFrame
    folders: tuple[Path, ...] = ()

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets with a finished trial."""
        return sorted(set(self.points["dataset"]))

    def of(self, dataset: str) -> StudyResults:
        """The part about one dataset."""
        trials = self.tables.trials[self.tables.trials["dataset"] == dataset]
        keys = pd.MultiIndex.from_frame(trials[["study", "trial_id"]])
        details = {
            name: frame[pd.MultiIndex.from_frame(frame[["study", "trial_id"]]).isin(keys)]
            for name, frame in self.tables.as_dict().items()
        }
        points = self.points[self.points["dataset"] == dataset]
        return replace(self, tables=Tables(**details), points=points)

    @property
    def classes(self) -> list[str]:
        """Labels of the validation cases."""
        labels = self.tables.cases["label"]
        return sorted(set(labels[labels != FOREGROUND]))

    def of_class(self, label: str) -> StudyResults:
        """The same with Dice, NSD and HD95 of one class in place of the means over classes, where a trial has them.

        Raises:
            InvalidInputError: no validation case has such a class.
        """
        check_choice("class", label, self.classes)
        cases = self.tables.cases[self.tables.cases["label"] == label]
        means = cases.groupby(KEY)[list(BY_CLASS)].mean().reindex(pd.MultiIndex.from_frame(self.tables.trials[KEY]))
        trials = self.tables.trials.assign(**{name: means[name].to_numpy(dtype=float) for name in BY_CLASS})
        both = pd.concat([cases, cases.assign(label=FOREGROUND)], ignore_index=True)
        return results_of(replace(self.tables, trials=trials, cases=both))


def gather(folders: Sequence[Path], *, grid: Grid | None = None, with_details: bool = True) -> StudyResults:
    """Read studies, reports or folders of tables.

    Args:
        folders: as `sources.read` takes them.
        grid: whose carbon intensity to use instead of the recorded ones.
        with_details: see `frame.read_studies`; another grid needs them. Without, points have no intervals yet.

    Raises:
        LedgerError: a folder cannot be read.
    """
    with reading_many():
        tables = read(folders, with_details=with_details or grid is not None)
        found = results_of(tables if grid is None else redrawn(tables, grid), intervals=with_details)
    return replace(found, folders=tuple(folders))


def results_of(tables: Tables, *, intervals: bool = True) -> StudyResults:
    """Average the finished trials of some tables; of thousands of points, intervals are a tenth of the time."""
    points = average_points(tables.trials)
    return StudyResults(tables=tables, points=with_intervals(points, tables) if intervals else points)


def find_trial(folders: Sequence[Path], trial_id: str) -> TrialFolder | None:
    """The folder of a trial in the first study that holds it; None if none does."""
    paths = (folder / "trials" / trial_id for folder in folders)
    return next((TrialFolder(path) for path in paths if (path / "spec.json").exists()), None)
