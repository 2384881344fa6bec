"""What a preparation is asked to make, and the record of what was made.

The record (`pgps_prepared.json` beside the plans) is what makes a second call a no-op. Nothing else reads it: a dataset
that nnU-Net's own commands prepared has none and is as good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import files
from study.checks import check_choice
from study.datasets import DEFAULT_PLANS
from study.errors import InvalidInputError, MissingDataError
from study.small_plan import SmallPlan

RECORD_NAME = "pgps_prepared.json"
DEFAULT_PLANNER = "ExperimentPlanner"
DEFAULT_CONFIGURATIONS = ("3d_fullres",)
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
SMALL_SUFFIX = "Small"
PLANS_OF_PLANNER: Mapping[str, str] = {
    DEFAULT_PLANNER: DEFAULT_PLANS,
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "nnUNetPlannerResEncL": "nnUNetResEncUNetLPlans",
    "nnUNetPlannerResEncXL": "nnUNetResEncUNetXLPlans",
}
"""nnU-Net's planners and the names they give their plans. Any other planner of nnU-Net needs a name of one's own."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which plans are made, and which of their configurations are preprocessed.

    Attributes:
        planner: class of nnU-Net's that plans.
        configurations: names of nnU-Net's configurations.
        plans_name: name of the plans; None takes the planner's own, with `Small` appended for a small plan.
        small: how nnU-Net's plan is made smaller, or None.

    Raises:
        InvalidInputError: an unknown configuration, a name no file can have, or a name needed and not given.
    """

    planner: str = DEFAULT_PLANNER
    configurations: tuple[str, ...] = DEFAULT_CONFIGURATIONS
    plans_name: str | None = None
    small: SmallPlan | None = None

    def __post_init__(self) -> None:
        for name in self.configurations:
            check_choice("--configurations", name, CONFIGURATIONS)
        if not self.configurations:
            raise InvalidInputError(field="--configurations", received="nothing", legal=", ".join(CONFIGURATIONS))
        if self.plans_name is None and self.planner not in PLANS_OF_PLANNER:
            legal = "one of " + ", ".join(PLANS_OF_PLANNER)
            remedy = "or another planner of nnU-Net together with --plans-name"
            raise InvalidInputError(field="--planner", received=self.planner, legal=legal, remedy=remedy)
        # nnU-Net joins trainer, plans and configuration with two underscores.
        if self.plans_name is not None and ("__" in self.plans_name or not re.fullmatch(r"\w[\w-]*", self.plans_name)):
            legal = "letters, digits, - and single underscores"
            raise InvalidInputError(field="--plans-name", received=self.plans_name, legal=legal)

    @property
    def plans(self) -> str:
        """Name of the plans made."""
        return self.plans_name or PLANS_OF_PLANNER[self.planner] + (SMALL_SUFFIX if self.small else "")

    @property
    def planned_as(self) -> str:
        """Name that nnU-Net plans under. Plans made smaller keep the planner's, and with it the preprocessed cases."""
        return PLANS_OF_PLANNER.get(self.planner, self.plans) if self.small else self.plans

    def identity(self) -> dict[str, Any]:
        """What decides the content of the plans file, as JSON. Small plans hold the wanted configurations alone."""
        small = self.small.as_dict() if self.small else None
        wanted = sorted(set(self.configurations)) if self.small else None
        return {"planner": self.planner, "small": small, "small_configurations": wanted}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a prepared dataset, empty when there is none.

    Raises:
        MissingDataError: it cannot be read.
    """
    path = folder / RECORD_NAME
    try:
        record = files.read_json(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{path} cannot be read ({error}); delete it to verify the dataset again") from error
    return {"plans": {}, **record}


def write_record(folder: Path, **changed: Any) -> None:
    """Change entries of the record."""
    files.write_json(folder / RECORD_NAME, {**read_record(folder), **changed})
