"""Where tables come from: study folders, or the parquet files that a report keeps beside its page.

report/data/{trials,epochs,cases,costs}.parquet   the tables
report/data/schema.json                           version, and name, unit, dtype and meaning of every column

The same energy on another grid: CO₂ drawn again for another country's carbon intensity.

Energy was measured, or modelled, where the trials ran; only what turns it into CO₂ changes. The intensities are
CodeCarbon's yearly averages. The PUE stays that of the data centre unless another one is given.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.tables.columns import TABLES, Objective, dtypes
from analysis.tables.contention import with_paces
from analysis.tables.format import amount
from analysis.tables.frame import KEY, Tables, joined, read_studies
from analysis.tables.rows import carbon_words
from study.common.errors import LedgerError, check_range
from study.common.files import write_bytes
from study.run.meter import carbon_intensity_kg_per_kwh, check_country
from study.store.records import TRAINING_PHASES

DATA = "data"
DEMO = "studies/demo"
SCHEMA_FILE = "schema.json"
SCHEMA_VERSION = 1


def read(folders: Sequence[Path], *, with_details: bool = True) -> Tables:
    """The tables of study folders, reports and folders of parquet files, one below the other.

    Args:
        folders: of these.
        with_details: see `read_studies`.

    Raises:
        LedgerError: a folder is none of these, of a newer version, or not readable.
    """
    stored = {folder: _stored(folder) for folder in folders}
    studies = [folder for folder, data in stored.items() if data is None]
    parts = [read_studies(studies, with_details=with_details)] if studies else []
    parts += [_load(data) for data in dict.fromkeys(stored.values()) if data is not None]
    return with_paces(joined(parts))


def load_trials(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a parquet file of trials, for studies too large for all of them.

    Raises:
        LedgerError: the file is no such table, or lacks a column.
    """
    types = {name: dtype for name, dtype in dtypes(TABLES["trials"]).items() if name in columns}
    try:
        return pd.read_parquet(path, columns=list(columns)).astype(types)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(f"{path} is not a table of trials with {', '.join(columns)} ({reason})") from error


def save(tables: Tables, folder: Path) -> list[Path]:
    """Write the tables as parquet files with their schema; the folder is made if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {f"{name}.parquet": frame.to_parquet(index=False) for name, frame in tables.as_dict().items()}
    content[SCHEMA_FILE] = json.dumps(schema(), indent=1, ensure_ascii=False).encode()
    for name, data in content.items():
        write_bytes(folder / name, data)
    return [folder / name for name in content]


def schema() -> dict[str, object]:
    """The columns of the four tables with label, unit, dtype and meaning."""
    tables = {name: [asdict(column) for column in columns] for name, columns in TABLES.items()}
    return {"schema": SCHEMA_VERSION, "missing": "an empty cell; never 0", "tables": tables}


def _stored(folder: Path) -> Path | None:
    """The folder of parquet files that is meant, None if it is to be read as a study."""
    if (folder / "study.json").exists():
        return None
    return next((data for data in (folder, folder / DATA) if (data / "trials.parquet").exists()), None)


def _load(folder: Path) -> Tables:
    _check_schema(folder)
    return Tables(**{name: _load_table(folder / f"{name}.parquet", name) for name in TABLES})


def _check_schema(folder: Path) -> None:
    path = folder / SCHEMA_FILE
    try:
        version = json.loads(path.read_text(encoding="utf-8"))["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} is not a readable schema ({error}); write the report anew") from error
    if version != SCHEMA_VERSION:
        raise LedgerError(f"{folder} has tables of schema {version}, this version reads {SCHEMA_VERSION}; update it")


def _load_table(path: Path, name: str) -> pd.DataFrame:
    types = dtypes(TABLES[name])
    try:
        frame = pd.read_parquet(io.BytesIO(path.read_bytes()))
        if frame.columns.isin(KEY).sum() < len(KEY):
            raise KeyError(*KEY)
        # What a report from before a column was added does not have is missing.
        return frame.reindex(columns=list(types)).astype(types)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise LedgerError(f"{path} is not a table of {name} ({reason}); write the report anew") from error


def named_studies() -> list[Path]:
    """The studies of a notebook: those that `PGPS_STUDIES` names, or the demo's, in this folder or one above it."""
    named = os.environ.get("PGPS_STUDIES")
    if named:
        return [Path(name) for name in named.split(os.pathsep)]
    here = Path.cwd()
    return [next((folder / DEMO for folder in (here, *here.parents) if (folder / DEMO).is_dir()), Path(DEMO))]


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
