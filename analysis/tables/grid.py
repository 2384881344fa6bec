"""The same energy on another grid: CO₂ drawn again for another country's carbon intensity.

Energy was measured, or modelled, where the trials ran; only what turns it into CO₂ changes. The intensities are
CodeCarbon's yearly averages. The PUE stays that of the data centre unless another one is given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pandas as pd

from analysis.tables.columns import Objective
from analysis.tables.format import amount
from analysis.tables.frame import KEY, Tables
from analysis.tables.rows import carbon_words
from study.common.errors import check_range
from study.run.meter import carbon_intensity_kg_per_kwh, check_country
from study.store.records import TRAINING_PHASES

NO_EMBODIED_CARBON = "CO₂ is of operation alone, without the embodied carbon of the hardware."
# Large grids of little and of much carbon, and data centres of little and of much overhead.
_ENDS = (("NOR", 1.1), ("IND", 1.6))
_TRAINING = [phase.value for phase in TRAINING_PHASES]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A country's electricity.

    Attributes:
        country: ISO 3166 alpha-3 code.
        pue: power usage effectiveness of the data centre, 1 to 10; None keeps the recorded ones.

    Raises:
        InvalidInputError: an unknown code, or a PUE out of range.
    """

    country: str
    pue: float | None = None

    def __post_init__(self) -> None:
        check_country(self.country)
        if self.pue is not None:
            check_range("pue", self.pue, 1, 10)

    @property
    def carbon_intensity(self) -> float:
        """In kg CO₂ equivalents per kWh."""
        return carbon_intensity_kg_per_kwh(self.country)


def carbon_range(energy_kwh: float) -> str:
    """`33.1 g (PUE 1.1, NOR) to 1.14 kg (PUE 1.6, IND)`: what some energy emits between two plausible ends."""
    ends = [Grid(country=country, pue=pue) for country, pue in _ENDS]
    words = [
        f"{amount(energy_kwh * end.carbon_intensity * (end.pue or 1), 'kg')} (PUE {end.pue}, {end.country})"
        for end in ends
    ]
    return " to ".join(words)


def about_carbon(objectives: Iterable[Objective]) -> list[str]:
    """What any amount of CO₂ leaves open, if there is one."""
    if not any(objective.is_carbon for objective in objectives):
        return []
    return [f"{NO_EMBODIED_CARBON} Elsewhere a kWh is {carbon_range(1.0)}."]


def redrawn(tables: Tables, grid: Grid) -> Tables:
    """The tables with every CO₂ figure as it would be on `grid`; seconds and energy stay."""
    pue = tables.costs["pue"] if grid.pue is None else pd.Series(grid.pue, index=tables.costs.index)
    rate = grid.carbon_intensity * pue
    costs = tables.costs.assign(
        co2_kg=tables.costs["energy_kwh"] * rate,
        waste_co2_kg=tables.costs["waste_energy_kwh"] * rate,
        carbon_intensity=grid.carbon_intensity,
        pue=pue,
    )
    trained, trials = costs[costs["phase"].isin(_TRAINING)], tables.trials.copy()
    for name, part in (("co2_kg", trained), ("total_co2_kg", costs)):
        # A sum with an unmeasured part stays unmeasured.
        sums = part.groupby(KEY)["co2_kg"].sum(min_count=1, skipna=False)
        trials[name] = sums.reindex(pd.MultiIndex.from_frame(trials[KEY])).to_numpy(dtype=float)
    spent = trials[trials["total_co2_kg"].notna()]
    pues = costs.groupby(KEY)["pue"].agg(lambda values: sorted(set(values)))
    rates = [
        " | ".join(carbon_words(grid.carbon_intensity, pue) for pue in pues[key])
        for key in spent[KEY].itertuples(index=False, name=None)
    ]
    trials.loc[spent.index, "country"] = grid.country
    trials.loc[spent.index, "carbon_rate"] = rates
    # Curves by the mean rate of their trial's training.
    spent = trained.groupby(KEY)[["co2_kg", "energy_kwh"]].sum()
    mean = (spent["co2_kg"] / spent["energy_kwh"]).reindex(pd.MultiIndex.from_frame(tables.epochs[KEY]))
    epochs = tables.epochs.assign(co2_kg=tables.epochs["energy_kwh"] * mean.to_numpy(dtype=float))
    return replace(tables, trials=trials, costs=costs, epochs=epochs)
