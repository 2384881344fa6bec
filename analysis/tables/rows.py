"""One trial of a ledger as rows of the four tables: what it is, its learning curve, its cases, its costs.

The columns are documented in `analysis.tables.columns`.

What a training had spent when it reached an iteration, without work done again: the cost axis of its curve.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, repeat
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.tables.methods import method_of, point_id, stage_table
from study.common.errors import StudyError
from study.store.audit import UNFORESEEN, Ahead, read_trial
from study.store.costs import Bill, Entry, bill, scaled, total
from study.store.readings import MeterInfo
from study.store.records import TRAINING_PHASES, AttemptHeader, CostInterval, EpochReport, Phase
from study.store.results import NSD, TrialResult
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder


def spent_by(iterations: Sequence[int], priced: Sequence[Entry]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy in kWh and CO₂ in kg of the training loop up to each of some iterations; NaN where it was not measured.

    Args:
        iterations: of the whole training.
        priced: a trial's cost intervals. One that an iteration cuts counts by the share of its iterations before it.
    """
    kept = []
    for interval, charge, waste in ((one.interval, one.charge, one.waste) for one in priced):
        # The part that was not done again.
        share = 1.0 - waste.seconds / charge.seconds if charge.seconds else 1.0
        if interval.phase in TRAINING_PHASES and share > 0:
            start = interval.iteration_start
            amounts = [math.nan if part is None else share * part for part in (charge.energy_kwh, charge.co2_kg)]
            kept.append((start + share * (interval.iteration_stop - start), start, *amounts))
    kept.sort()
    return _sums(iterations, kept, 2), _sums(iterations, kept, 3)


def _sums(iterations: Sequence[int], kept: Sequence[tuple[float, ...]], column: int) -> NDArray[np.float64]:
    """A column up to each iteration, of rows: iteration after the last, the first one, kWh, kg."""
    if not kept:
        return np.full(len(iterations), np.nan)
    before = np.array([0.0, *accumulate(row[column] for row in kept)])
    whole = np.searchsorted(np.array([row[0] for row in kept]), iterations, side="right")
    sums = before[whole]
    for position, (index, iteration) in enumerate(zip(whole, iterations, strict=True)):
        if index < len(kept):
            stop, start = kept[index][:2]
            sums[position] += kept[index][column] * max(0.0, iteration - start) / max(1.0, stop - start)
    return sums


Row = dict[str, Any]
Columns = dict[str, Sequence[Any]]
UNREADABLE = "unreadable"
FOREGROUND = "foreground"
_OF_THE_NODE = ("estimated", "measured")


def trial_rows(folder: TrialFolder, ahead: Ahead, *, with_details: bool) -> tuple[Row, dict[str, Columns]]:
    """The trial's row of `trials`, and its rows of the other tables, column by column: there may be millions.

    One that does not pass the audit is a row of `trials` alone, with the reason. Without details there are no epochs,
    of the cases the classes alone, and of the costs what paces are computed from.
    """
    try:
        records = read_trial(folder, ahead)
        attempts, costs = records.attempts, bill(records.attempts, records.intervals)
        imported = records.spec.imported is not None
        row = {
            **_setting(records.spec),
            "state": records.state.value,
            "failure": records.failure,
            **_outcome(records.spec, records.result),
            **_costs(attempts, costs, {i.phase for i in records.intervals}, imported=imported),
            **_use(records.intervals),
        }
        if not with_details:
            return row, {
                "cases": _case_columns(records.result, with_means=False),
                "costs": _stage_seconds(records.intervals),
            }
        return row, {
            "epochs": _in_columns(list(_epoch_rows(records.epochs, costs.entries))),
            "cases": _case_columns(records.result, with_means=True),
            "costs": _in_columns(list(_cost_rows(costs.entries))),
        }
    except (StudyError, *UNFORESEEN) as error:
        return {"state": UNREADABLE, "failure": " ".join(str(error).split())}, {}


def _in_columns(rows: Sequence[Row]) -> Columns:
    """Rows of the same keys."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _setting(spec: TrialSpec) -> Row:
    growth = spec.axes.batch_growth
    return {
        **{name: getattr(spec, name) for name in ("dataset", "plans", "configuration", "fold", "seed", "scheme")},
        **vars(spec.axes),
        "batch_growth": growth if isinstance(growth, str) else repr(growth).removesuffix(".0"),
        **vars(spec.training),
        "trainer": spec.imported,
        "point_id": point_id(spec),
        "method": method_of(spec),
        "pdl_iterations": None if spec.data is None else spec.data.until_iteration,
        "n_stages": len(spec.curriculum.stages),
        "stage_table": stage_table(spec.curriculum),
        "iterations": spec.curriculum.total_iterations,
    }


def _outcome(spec: TrialSpec, result: TrialResult | None) -> Row:
    if result is None:
        return {}
    kept = {name: getattr(result, name) for name in ("dice", "voxels", "voxel_share", "weights_sha256")}
    nsd = result.metrics.get(NSD)
    return {
        **kept,
        **{name: one.mean for name, one in result.metrics.items()},
        "nsd_tolerance_mm": None if nsd is None else f"{nsd.tolerance_mm:g}",
        "remarks": " | ".join(result.remarks) or None,
        "stopped_at_iteration": spec.stopped_at(result.iterations),
    }


def _costs(attempts: Sequence[AttemptHeader], costs: Bill, phases: set[Phase], *, imported: bool) -> Row:
    row = _circumstances(attempts)
    if imported:
        # Nothing says what else the machine did, or had.
        row |= dict.fromkeys(("cpus", "gpus", "concurrent_trials", "meter", "country", "carbon_rate"))
    # A sum over no record at all is unknown, not 0.
    if Phase.TRAINING in phases and attempts:
        charge = costs.training
        # RAM and the idle CPU; ledgers of before do not say how much of the CPU is idle power.
        constant = None if charge.ram_kwh is None else charge.ram_kwh + (charge.idle_cpu_kwh or 0.0)
        row |= {
            "runtime_seconds": charge.seconds,
            "energy_kwh": charge.energy_kwh,
            "gpu_energy_kwh": charge.gpu_kwh,
            "constant_energy_kwh": constant,
            "co2_kg": charge.co2_kg,
        }
    if imported and Phase.FINAL_VALIDATION not in phases:
        return row | _unmeasured(costs)
    if phases and attempts:
        row |= {
            "total_seconds": costs.total.seconds,
            "total_energy_kwh": costs.total.energy_kwh,
            "total_co2_kg": costs.total.co2_kg,
            "waste_seconds": costs.waste.seconds,
            **_unmeasured(costs),
        }
    return row


def _unmeasured(costs: Bill) -> Row:
    return {"unmeasured": "; ".join(f"{part}: {reason}" for part, reason in costs.unmeasured.items()) or None}


def _circumstances(attempts: Sequence[AttemptHeader]) -> Row:
    if not attempts:
        return {"attempts": 0}
    return {
        "attempts": len(attempts),
        "hardware": _different(_hardware(a.cpu_name, a.gpu_names) for a in attempts),
        "device": _different(a.device for a in attempts),
        "cpus": attempts[-1].cpus,
        "gpus": attempts[-1].gpus,
        "concurrent_trials": max(a.concurrent_trials for a in attempts),
        "energy_methods": _different(_pairs(_methods(a.meter)) for a in attempts),
        "meter": _different(f"{a.meter.name} {a.meter.version}".strip() for a in attempts),
        "country": _different(a.meter.country for a in attempts),
        "carbon_rate": _different(carbon_words(a.meter.carbon_intensity_kg_per_kwh, a.meter.pue) for a in attempts),
        "versions": _different(_pairs(a.versions) for a in attempts),
    }


def _methods(meter: MeterInfo) -> dict[str, str]:
    """How energy was read; a CPU that was charged by share of the node's cores says so, as records of before do not."""
    shared = meter.methods.get("cpu") in _OF_THE_NODE
    return {**meter.methods, **({"cpu": f"{meter.methods['cpu']} by share of cores"} if shared else {})}


def _use(intervals: Sequence[CostInterval]) -> Row:
    """Trials on the node, this one included, and its mean load; missing in ledgers of before."""
    uses = [(interval.use, interval.seconds) for interval in intervals if interval.use is not None]
    seconds = sum(seconds for _, seconds in uses)
    return {
        "trials_on_node": max((use.trials for use, _ in uses if use.trials is not None), default=None),
        "busy_cores": sum(use.cpu_seconds for use, _ in uses) / seconds if seconds else None,
    }


def carbon_words(intensity_kg_per_kwh: float, pue: float) -> str:
    """What turned energy into CO₂, in words."""
    return f"{intensity_kg_per_kwh:g} kg CO₂ per kWh, PUE {pue:g}"


def _case_columns(result: TrialResult | None, *, with_means: bool) -> Columns:
    if result is None:
        return {}
    means, by_case = result.dice_per_case, result.dice_per_case_and_class
    measured = {"dice": by_case, **{name: one.per_case_and_class for name, one in result.metrics.items()}}
    first = (FOREGROUND,) if with_means else ()
    shown = [(*first, *by_case[case]) for case in means]

    def cells(values: Mapping[str, Mapping[str, float | None]]) -> Iterator[Iterable[float | None]]:
        for case, mean in means.items():
            mine = values.get(case, {})
            # Those of Dice are in this order: of thousands of trials a million are read.
            by_label = mine.values() if values is by_case else map(mine.get, by_case[case])
            yield (mean if values is by_case else _mean(mine), *by_label) if with_means else by_label

    return {
        "case": list(chain.from_iterable(map(repeat, means, map(len, shown)))),
        "label": list(chain.from_iterable(shown)),
        **{name: list(chain.from_iterable(cells(values))) for name, values in measured.items()},
    }


def _mean(labels: Mapping[str, float | None]) -> float | None:
    known = [value for value in labels.values() if value is not None]
    return fmean(known) if known else None


def _cost_rows(priced: Sequence[Entry]) -> Iterator[Row]:
    """Intervals of the same attempt, phase and stage become one row, and parts of intervals whose stages were drawn."""
    segments: dict[tuple[int, Phase, int | None], list[tuple[Entry, int, float]]] = {}
    for entry in priced:
        for stage, iterations, share in entry.interval.by_stage():
            key = (entry.interval.attempt, entry.interval.phase, stage)
            segments.setdefault(key, []).append((entry, iterations, share))
    for (attempt, phase, stage), parts in segments.items():
        rows = [entry for entry, _, _ in parts]
        charge = total(scaled(entry.charge, share) for entry, _, share in parts)
        waste, header = total(scaled(entry.waste, share) for entry, _, share in parts), rows[0].header
        yield {
            "attempt": attempt,
            "phase": phase.value,
            "stage": stage,
            "iteration_start": min(r.interval.iteration_start for r in rows),
            "iteration_stop": max(r.interval.iteration_stop for r in rows),
            "started_at": min(r.interval.started_at for r in rows),
            "iterations": sum(iterations for _, iterations, _ in parts),
            **vars(charge),
            **_use([r.interval for r in rows]),
            "energy_kwh": charge.energy_kwh,
            "waste_seconds": waste.seconds,
            "waste_energy_kwh": waste.energy_kwh,
            "waste_co2_kg": waste.co2_kg,
            "carbon_intensity": header.meter.carbon_intensity_kg_per_kwh,
            "pue": header.meter.pue,
            "hostname": header.hostname,
            "hardware": _hardware(header.cpu_name, header.gpu_names),
        }


def _stage_seconds(intervals: Sequence[CostInterval]) -> Columns:
    """Of the rows of costs those of training, and of these the time alone."""
    seconds, iterations = defaultdict[tuple[int, int | None], float](float), defaultdict[Any, int](int)
    for interval in intervals:
        if interval.phase is Phase.TRAINING:
            for stage, count, share in interval.by_stage():
                seconds[interval.attempt, stage] += share * interval.seconds
                iterations[interval.attempt, stage] += count
    return {
        "phase": [Phase.TRAINING.value] * len(seconds),
        "stage": [stage for _, stage in seconds],
        "seconds": list(seconds.values()),
        "iterations": list(iterations.values()),
    }


def _epoch_rows(reports: Sequence[EpochReport], priced: Sequence[Entry]) -> Iterator[Row]:
    energy, carbon = spent_by([report.iteration for report in reports], priced)
    for report, kwh, kg in zip(reports, energy, carbon, strict=True):
        yield {
            **vars(report),
            "patch_size": "×".join(map(str, report.patch_size)),
            "energy_kwh": kwh,
            "co2_kg": kg,
        }


@lru_cache(maxsize=256)
def _hardware(cpu_name: str, gpu_names: tuple[str, ...]) -> str:
    counts = {name: gpu_names.count(name) for name in sorted(gpu_names)}
    gpus = [name if count == 1 else f"{count}× {name}" for name, count in counts.items()]
    return " + ".join([cpu_name, *gpus])


def _pairs(words: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(words.items()))


def _different(words: Iterable[str]) -> str:
    """The different words in their first order."""
    return " | ".join(dict.fromkeys(words))
