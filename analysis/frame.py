"""Study folders as one tidy table: a row per trial of the ledger, with what it is, where it stands and what it cost.

Nothing is left out: a trial that has not finished, that failed or whose folder cannot be read is a row with its state
and the reason. The columns are documented in `analysis.columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.columns import TRIAL_COLUMNS, dtypes
from analysis.methods import method_of, point_id, stage_table
from study.costs import Bill, bill
from study.errors import LedgerError, StudyError
from study.ledger import Ledger, TrialFolder
from study.records import AttemptHeader, Phase, TrialSpec

UNREADABLE = "unreadable"
FINISHED = "finished"
# What a broken file of a trial can raise when it is parsed.
_BROKEN = (StudyError, OSError, ValueError, KeyError, TypeError, AttributeError)


def read_studies(folders: Sequence[Path]) -> pd.DataFrame:
    """The trials of one or several study folders, one below the other; a folder named twice is read once.

    Returns:
        A frame with the columns of `columns.TRIAL_COLUMNS`, oldest trial of the first study first.

    Raises:
        LedgerError: a folder is absent, no study, of a newer version, or not readable.
    """
    rows = [row for name, ledger in _ledgers(folders) for row in _study_rows(name, ledger)]
    return frame_of(rows)


def frame_of(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A frame with all trial columns and their types; what a row does not have is missing."""
    names = [column.name for column in TRIAL_COLUMNS]
    return pd.DataFrame(list(rows), columns=names, dtype=object).astype(dtypes(TRIAL_COLUMNS))


def _ledgers(folders: Sequence[Path]) -> list[tuple[str, Ledger]]:
    """Each study with its name: that of its folder, or the whole path where two folders are named alike."""
    roots = list(dict.fromkeys(folder.resolve() for folder in folders))
    names = [root.name for root in roots]
    return [(str(root) if names.count(root.name) > 1 else root.name, _open(root)) for root in roots]


def _open(root: Path) -> Ledger:
    try:
        return Ledger.open(root)
    except OSError as error:
        raise LedgerError(f"cannot read {root}: {error.strerror}") from error


def _study_rows(name: str, ledger: Ledger) -> list[dict[str, Any]]:
    try:
        folders = ledger.trials()
    except OSError as error:
        raise LedgerError(f"cannot read {ledger.root}: {error.strerror}") from error
    return [_trial_row(name, folder) for folder in folders]


def _trial_row(study: str, folder: TrialFolder) -> dict[str, Any]:
    row: dict[str, Any] = {"study": study, "trial_id": folder.trial_id}
    try:
        for part in (_setting, _standing, _outcome, _costs):
            row.update(part(folder))
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        row.update(state=UNREADABLE, failure=f"{type(error).__name__}: {reason}")
    return row


def _setting(folder: TrialFolder) -> dict[str, Any]:
    spec = folder.spec()
    axes, training = asdict(spec.axes), asdict(spec.training)
    axes["batch_growth"] = _word(spec.axes.batch_growth)
    return {
        **{name: getattr(spec, name) for name in ("dataset", "plans", "configuration", "fold", "seed", "scheme")},
        **axes,
        **training,
        **_curriculum(spec),
    }


def _curriculum(spec: TrialSpec) -> dict[str, Any]:
    return {
        "point_id": point_id(spec),
        "method": method_of(spec),
        "n_stages": len(spec.curriculum.stages),
        "stage_table": stage_table(spec),
        "iterations": spec.curriculum.total_iterations,
    }


def _standing(folder: TrialFolder) -> dict[str, Any]:
    return {"state": folder.state().value, "failure": folder.failure_reason()}


def _outcome(folder: TrialFolder) -> dict[str, Any]:
    result = folder.result()
    if result is None:
        return {}
    return {name: getattr(result, name) for name in ("dice", "voxels", "voxel_share", "weights_sha256")}


def _costs(folder: TrialFolder) -> dict[str, Any]:
    attempts, intervals = folder.attempts(), folder.cost_intervals()
    costs = bill(attempts, intervals)
    # A sum over no record at all is unknown, not 0.
    trained = any(i.phase is Phase.TRAINING for i in intervals)
    return {
        **(_training_costs(costs) if trained and attempts else {}),
        **(_total_costs(costs) if intervals and attempts else {}),
        **_circumstances(attempts),
    }


def _training_costs(costs: Bill) -> dict[str, Any]:
    charge = costs.training
    return {"runtime_seconds": charge.seconds, "energy_kwh": charge.energy_kwh, "co2_kg": charge.co2_kg}


def _total_costs(costs: Bill) -> dict[str, Any]:
    charge = costs.total
    return {
        "total_seconds": charge.seconds,
        "total_energy_kwh": charge.energy_kwh,
        "total_co2_kg": charge.co2_kg,
        "waste_seconds": costs.waste.seconds,
    }


def _circumstances(attempts: Sequence[AttemptHeader]) -> dict[str, Any]:
    if not attempts:
        return {"attempts": 0}
    return {
        "attempts": len(attempts),
        "hardware": _different(_hardware(a) for a in attempts),
        "device": _different(a.device for a in attempts),
        "cpus": attempts[-1].cpus,
        "gpus": attempts[-1].gpus,
        "concurrent_trials": max(a.concurrent_trials for a in attempts),
        "energy_methods": _different(_pairs(a.meter.methods) for a in attempts),
        "meter": _different(f"{a.meter.name} {a.meter.version}".strip() for a in attempts),
        "country": _different(a.meter.country for a in attempts),
        "carbon_rate": _different(_carbon_rate(a) for a in attempts),
        "versions": _different(_pairs(a.versions) for a in attempts),
    }


def _hardware(attempt: AttemptHeader) -> str:
    counts = {name: attempt.gpu_names.count(name) for name in sorted(attempt.gpu_names)}
    gpus = [name if count == 1 else f"{count}× {name}" for name, count in counts.items()]
    return " + ".join([attempt.cpu_name, *gpus])


def _pairs(words: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(words.items()))


def _different(words: Iterable[str]) -> str:
    """The different words in their first order."""
    return " | ".join(dict.fromkeys(words))


def _word(growth: float | str) -> str:
    return growth if isinstance(growth, str) else f"{growth:g}"


def _carbon_rate(attempt: AttemptHeader) -> str:
    return f"{attempt.meter.carbon_intensity_kg_per_kwh:g} kg CO₂ per kWh, PUE {attempt.meter.pue:g}"
