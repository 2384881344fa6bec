"""Defaults that depend on what is prepared: resolved when a study is created, kept in it, and not looked up again.

A second plans file made later then changes nothing, and naming what a default came to is the same study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from study.datasets import DataPaths, find_dataset
from study.same_study import recorded_defaults
from study.spaces.space import SearchSpace


def resolved_space(space: SearchSpace, paths: DataPaths, header: Mapping[str, Any]) -> SearchSpace:
    """The space with full names of datasets and plans.

    Args:
        space: as its file and the command line say it.
        paths: prepared data.
        header: of the study if there is one, else empty; what its defaults came to holds.

    Raises:
        MissingDataError: a dataset or plans are not there.
    """
    recorded = recorded_defaults(header)
    resolved = {}
    for written in space.datasets:
        dataset = find_dataset(paths, written)
        resolved[dataset.name] = dataset.choose_plans(space.plans or recorded.get(dataset.name))
    return replace(space, resolved=resolved)
