"""What a front may be drawn over: each objective with its column, direction, label and unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analysis.tables.columns import BY_NAME
from study.common.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective.

    Attributes:
        name: also the column's.
        maximise: more is better; otherwise less is.
        machine_bound: whether its value depends on the machine, so that different hardware cannot be compared.
        label: for axes; unit: of the column, empty for shares and counts.
    """

    name: str
    maximise: bool = False
    machine_bound: bool = True

    @property
    def label(self) -> str:
        """For axes and headings, without the unit."""
        return BY_NAME[self.name].label

    @property
    def unit(self) -> str:
        """Of the column; empty for shares and counts."""
        return BY_NAME[self.name].unit

    @property
    def is_carbon(self) -> bool:
        """Whether it is an amount of CO₂."""
        return self.unit == "kg"

    @property
    def is_energy(self) -> bool:
        """Whether it rests on a reading of energy."""
        return self.unit in ("kg", "kWh")


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(name="dice", maximise=True, machine_bound=False),
        Objective(name="nsd", maximise=True, machine_bound=False),
        Objective(name="hd95_mm", machine_bound=False),
        Objective(name="runtime_seconds"),
        Objective(name="energy_kwh"),
        Objective(name="co2_kg"),
        Objective(name="total_seconds"),
        Objective(name="total_energy_kwh"),
        Objective(name="total_co2_kg"),
        Objective(name="voxels", machine_bound=False),
        Objective(name="voxel_share", machine_bound=False),
    )
}
"""Every objective by name."""


def choose_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """The named objectives.

    Raises:
        InvalidInputError: fewer than two, an unknown one, or one named twice.
    """
    legal = f"two or more of {', '.join(OBJECTIVES)}"
    if len(names) < 2 or len(set(names)) < len(names) or any(name not in OBJECTIVES for name in names):
        raise InvalidInputError(field="objectives", received=",".join(names), legal=f"{legal}, each once")
    return tuple(OBJECTIVES[name] for name in names)
