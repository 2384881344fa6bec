"""nnU-Net's planners, the names of their plans, and the command that prepares plans of a name."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.common import files
from study.common.terminal import python

DEFAULT_PLANNER, DEFAULT_PLANS, SMALL_SUFFIX = "ExperimentPlanner", "nnUNetPlans", "Small"
PLANS_OF_PLANNER: Mapping[str, str] = {
    DEFAULT_PLANNER: DEFAULT_PLANS,
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}
"""nnU-Net's planners and the names they give their plans. Any other planner of nnU-Net needs a name of one's own."""
# What `prepare` noted of what it made, in the dataset's folder.
RECORD_NAME = "pgps_prepared.json"


def planner_named(word: str) -> str:
    """The planner that a word of the command line means: its name, or the end of it, such as `ResEncL`."""
    return next((name for name in PLANS_OF_PLANNER if word in (name, name.removeprefix("nnUNetPlanner"))), word)


def preparing(folder: Path, plans: str, *, number: int, data: Path | None, configuration: str = "") -> str:
    """The command that prepares plans of a name, as far as the name and the record of a prepared dataset say it.

    Small plans that nobody has made yet are to be as small as the newest that are there.

    Args:
        folder: of the prepared dataset.
        plans: their name.
        number: id of the dataset.
        data: folder of nnU-Net's folders, None for those of its variables.
        configuration: what is to be preprocessed, the usual unless given.
    """
    record = _record(folder)
    source, recipes = record.get("source", {}), [each["recipe"] for each in record.get("plans", {}).values()]
    own = record.get("plans", {}).get(plans, {}).get("recipe")
    planner = next((p for p, name in PLANS_OF_PLANNER.items() if plans in (name, name + SMALL_SUFFIX)), None)
    small = _newest_small(recipes) if plans.endswith(SMALL_SUFFIX) else None
    recipe: dict[str, Any] = own or {"planner": planner, "small": small}
    words = [f"--{source.get('kind', 'raw')}", source.get("folder", "FOLDER"), "--id", str(number)]
    words += ["--data", str(data)] if data is not None else []
    words += ["--planner", recipe["planner"] or "PLANNER"]
    words += ["--plans-name", plans] if planner != recipe["planner"] or planner is None else []
    words += ["--configurations", configuration] if configuration else []
    for name, value in (recipe["small"] or {}).items():
        numbers = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, numbers)] if value is not None else []
    return f"{python()} -m study prepare {shlex.join(words)}"


def _record(folder: Path) -> dict[str, Any]:
    try:
        return dict(files.read_json(folder / RECORD_NAME))
    except (OSError, ValueError, TypeError):
        return {}


def _newest_small(recipes: list[Any]) -> dict[str, Any]:
    return next((recipe["small"] for recipe in reversed(recipes) if recipe["small"]), {"max_features": 32})
