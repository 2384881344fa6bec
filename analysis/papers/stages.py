"""The supplement's Table 2 of the MICCAI paper: patch sizes of each task, and the batch size of each scheme there.

They are read from the trials' resolved stage tables, of the largest budget that a scheme was trained at: a short
training may have merged stages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.comparison import methods_of
from analysis.comparison.numbers import budget_words, percent
from analysis.exhibits import Exhibit
from analysis.methods import METHOD_LABELS
from analysis.tables import MISSING, Table

STEM = "patch_batch_sizes"
_PLAN = ["dataset", "plans", "configuration"]


def patch_batch_sizes(points: pd.DataFrame) -> Exhibit | None:
    """The exhibit; None without a finished trial of a published scheme. Points without a stage table are left out."""
    known = points[points["stage_table"].notna() & points["method"].isin(methods_of(points))]
    if known.empty:
        return None
    methods = methods_of(known)
    chosen = known.sort_values(["budget", "n_stages"], ascending=False, kind="stable")
    chosen = chosen.drop_duplicates([*_PLAN, "method"])
    data = pd.DataFrame([row for plan, rows in chosen.groupby(_PLAN) for row in _sizes(list(plan), rows, methods)])
    return Exhibit(
        stem=STEM,
        heading="Patch and batch sizes by scheme (MICCAI 2024, supplement)",
        notes=_notes(chosen),
        data=data,
        table=_table(data, methods),
        caption="Batch size of each scheme at each of its patch sizes",
    )


def _sizes(plan: Sequence[Any], rows: pd.DataFrame, methods: list[str]) -> list[dict[str, Any]]:
    """A row per patch size, smallest first: batch size and iterations by scheme."""
    stages: dict[tuple[int, ...], dict[str, Any]] = {}
    for _, row in rows.iterrows():
        for stage in json.loads(row["stage_table"]):
            size = stages.setdefault(tuple(stage["patch_size"]), {})
            size[f"batch_size_{row['method']}"] = stage["batch_size"]
            # Draws differ from seed to seed.
            size[f"iterations_{row['method']}"] = stage["iterations"] if row["order"] != "random" else pd.NA
    largest = max(map(math.prod, stages))
    columns = [f"{kind}_{method}" for method in methods for kind in ("batch_size", "iterations")]
    return [
        {
            **dict(zip(_PLAN, plan, strict=True)),
            "patch_size": "×".join(map(str, size)),
            "patch_voxels": math.prod(size),
            "share_of_full_patch": math.prod(size) / largest,
            **{name: stages[size].get(name, pd.NA) for name in columns},
        }
        for size in sorted(stages, key=lambda size: (math.prod(size), size))
    ]


def _table(data: pd.DataFrame, methods: list[str]) -> Table:
    several = len(data.drop_duplicates(["plans", "configuration"])) > 1
    plan = _PLAN if several else _PLAN[:1]
    return Table(
        headings=(
            *("Task", "Plans", "Configuration")[: len(plan)],
            *("Patch size [voxels]", "of the full patch"),
            *(f"Batch {METHOD_LABELS[method]}" for method in methods),
        ),
        numeric=(*(False,) * len(plan), False, True, *(True,) * len(methods)),
        rows=tuple(
            (
                *(row[name] for name in plan),
                *(row["patch_size"], percent(row["share_of_full_patch"])),
                *(_count(row[f"batch_size_{method}"]) for method in methods),
            )
            for _, row in data.iterrows()
        ),
    )


def _count(value: Any) -> str:
    return MISSING if pd.isna(value) else str(int(value))


def _notes(chosen: pd.DataFrame) -> list[str]:
    budgets = ", ".join(budget_words(budget) for budget in sorted(set(chosen["budget"]), reverse=True))
    notes = [
        "Voxels per axis in the axis order of the plan, smallest patch first. "
        f"A dash: the scheme does not use that size. Read at budget {budgets}."
    ]
    if (chosen["method"] == "rpss").any():
        notes.append("RPSS draws one of its sizes at random in every iteration; the others go from top to bottom.")
    return notes
