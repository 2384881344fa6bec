"""Whether the same work took the same time: milliseconds an iteration of one shape, in the trials that trained it.

A shape is what makes an iteration the same work on the same machine: dataset, plans, configuration, patch and batch
size, hardware, device. A curriculum that draws a size at every iteration has intervals without a stage: its shape is
the mixture of its whole stage table. Neighbours, throttling and slow disks make a difference; what it is, times cannot
tell. The pace of a trial is its time over what the same iterations take at the median over the trials.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis.tables.frame import KEY, Tables
from study.store.taken import LEAST_ITERATIONS, words

_PLACE = ("dataset", "plans", "configuration", "hardware", "device")
_SHAPE = [*_PLACE, "shape"]
_REFERENCE = [*_PLACE, "state", "order", "iterations", "stopped_at_iteration", "stage_table"]


def with_paces(tables: Tables) -> Tables:
    """The tables with `pace` and `runtime_at_reference_speed_seconds` of every trial, where they can be known."""
    if not (tables.costs["phase"] == "training").any():
        return tables
    work = _work(tables)
    medians = work.groupby(_SHAPE)["ms"].median()
    work = work.join(medians.rename("median_ms"), on=_SHAPE)
    shared = work[work.groupby(_SHAPE)["trial"].transform("nunique") > 1]
    sums = shared.assign(usual=shared["median_ms"] * shared["iterations"]).groupby("trial")[["seconds", "usual"]].sum()
    paces = 1000 * sums["seconds"] / sums["usual"]
    known = medians.to_dict()
    cells = zip(*(tables.trials[name].to_numpy(dtype=object) for name in _REFERENCE), strict=True)
    reference = [_reference_seconds(dict(zip(_REFERENCE, row, strict=True)), known) for row in cells]
    trials = tables.trials.assign(
        pace=paces.reindex(_keys(tables.trials)).to_numpy(dtype=float),
        runtime_at_reference_speed_seconds=pd.array(reference, dtype="float64"),
    )
    return replace(tables, trials=trials[list(tables.trials.columns)])


def spread_of(rows: pd.DataFrame) -> float:
    """How much longer the slowest of some trials, or of those behind points, took for the same work than the fastest.

    Returns:
        0.15 is 15 %; 0 where it is not known.
    """
    names = ("pace_min", "pace_max") if "pace_min" in rows else ("pace", "pace")
    low, high = rows[names[0]].min(), rows[names[1]].max()
    return 0.0 if pd.isna(low) or not low else float(high / low - 1)


def sentence(rows: pd.DataFrame) -> str:
    """What to say beside times of these trials or points, nothing while the same work took the same time."""
    said = words(spread_of(rows))
    return f"{said}: see runtime_at_reference_speed_seconds" if said else ""


def sentences(points: pd.DataFrame) -> list[str]:
    """What to say beside times of points of one or several datasets, none while the same work took the same time."""
    told = [sentence(part) for _, part in points.groupby("dataset")]
    return [f"{said}." for said in dict.fromkeys(filter(None, told))]


def _work(tables: Tables) -> pd.DataFrame:
    """A row per trial and shape: `seconds`, `iterations` and `ms` an iteration; without those of few iterations."""
    costs = tables.costs[tables.costs["phase"] == "training"]
    names = [*KEY, *_PLACE, "stage_table", "order"]
    rows = costs[[*KEY, "stage", "seconds", "iterations"]].merge(tables.trials[names], on=KEY)
    rows = rows.assign(
        trial=_keys(rows),
        # Stages drawn at random are one kind of work: a mixed iteration.
        shape=[
            _shape(table, pd.NA if order == "random" else stage)
            for table, order, stage in rows[["stage_table", "order", "stage"]].to_numpy(dtype=object)
        ],
    )
    work = rows.groupby(["trial", *_SHAPE], as_index=False)[["seconds", "iterations"]].sum()
    work = work[work["iterations"] >= LEAST_ITERATIONS]
    return work.assign(ms=1000 * work["seconds"] / work["iterations"].astype("float64"))


def _reference_seconds(trial: Mapping[Any, Any], medians: Mapping[Any, float]) -> float:
    """Every iteration of a finished trial once, at the median of its shape; NaN where one is not known."""
    if trial["state"] != "finished":
        return float("nan")
    place = tuple(trial[name] for name in _PLACE)
    return sum(
        (count * medians.get((*place, shape), float("nan")) / 1000 for shape, count in _counts(trial)), start=0.0
    )


def _counts(trial: Mapping[Any, Any]) -> Iterator[tuple[str, int]]:
    """How many iterations of each shape a trial trained."""
    total = trial["iterations"] if pd.isna(trial["stopped_at_iteration"]) else trial["stopped_at_iteration"]
    if trial["order"] == "random":
        yield _shape(trial["stage_table"], pd.NA), int(total)
        return
    for shape, first, iterations in _stages(trial["stage_table"]):
        count = min(iterations, int(total) - first)
        if count > 0:
            yield shape, count


def _shape(stage_table: str, stage: Any) -> str:
    stages = _stages(stage_table)
    return " ".join(shape for shape, _, _ in stages) if pd.isna(stage) else stages[int(stage)][0]


@lru_cache(maxsize=16384)
def _stages(stage_table: str) -> list[tuple[str, int, int]]:
    """Shape, first iteration and iterations of each stage."""
    return [
        (f"{'×'.join(map(str, one['patch_size']))}/{one['batch_size']}", one["first_iteration"], one["iterations"])
        for one in json.loads(stage_table)
    ]


def _keys(rows: pd.DataFrame) -> pd.Series[str]:
    return rows[KEY[0]] + " " + rows[KEY[1]]
