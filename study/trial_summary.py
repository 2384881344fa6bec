"""A finished trial for people and for programs: Dice, cost, model. All figures come from the ledger."""

from __future__ import annotations

from typing import Any

from study.costs import CostSegment
from study.plain import record_to_json
from study.prediction import predict_command
from study.records import Phase
from study.results import HD95, NSD
from study.stage_table import data_words
from study.trial import FinishedTrial


def as_json(trial: FinishedTrial) -> dict[str, Any]:
    """One object: result, cost of training, total cost, waste, attempts, model.

    `runtime_seconds`, `energy_kwh` and `co2_kg` are of the training loop with its validation batches, over all
    attempts; `total` adds set-up and the final validation. None is unmeasured.
    """
    bill, result = trial.bill, trial.result
    return {
        "trial_id": trial.folder.trial_id,
        "scheme": trial.spec.scheme,
        "dice": result.dice,
        "dice_per_class": dict(result.dice_per_class),
        "dice_per_case": dict(result.dice_per_case),
        "metrics": {name: record_to_json(one) for name, one in result.metrics.items()},
        "runtime_seconds": bill.training.seconds,
        "energy_kwh": bill.training.energy_kwh,
        "co2_kg": bill.training.co2_kg,
        "voxels": result.voxels,
        "voxel_share": result.voxel_share,
        "weights_sha256": result.weights_sha256,
        "iterations": result.iterations,
        "stopped_at_iteration": trial.spec.stopped_at(result.iterations),
        "total": {
            "seconds": bill.total.seconds,
            "energy_kwh": bill.total.energy_kwh,
            "co2_kg": bill.total.co2_kg,
        },
        "waste": {
            "seconds": bill.waste.seconds,
            "energy_kwh": bill.waste.energy_kwh,
            "co2_kg": bill.waste.co2_kg,
        },
        "unmeasured": dict(bill.unmeasured),
        "seconds_by_phase": {phase.value: charge.seconds for phase, charge in bill.by_phase.items()},
        "attempts": [_segment(segment) for segment in bill.segments],
        "folder": str(trial.folder.path),
        "predict": predict_command(trial.folder, trial.spec),
    }


def as_text(trial: FinishedTrial) -> str:
    """The same in a few lines."""
    bill, result = trial.bill, trial.result
    classes = ", ".join(f"{label}: {_dice(dice)}" for label, dice in result.dice_per_class.items())
    validation_seconds = bill.by_phase[Phase.FINAL_VALIDATION].seconds
    lines = [
        f"trial {trial.folder.trial_id} ({trial.spec.scheme}) is finished",
        f"Dice      {result.dice:.4f}   ({classes})",
        *_metrics(trial),
        f"training  {bill.training.seconds:.1f} s, {_energy(bill.training.energy_kwh, bill.training.co2_kg)}",
        f"total     {bill.total.seconds:.1f} s with {validation_seconds:.1f} s of validation, "
        f"{_energy(bill.total.energy_kwh, bill.total.co2_kg)}; {len(bill.segments)} attempt(s), "
        f"{bill.waste.seconds:.1f} s wasted",
        *(f"unknown   energy of {part}: {reason}" for part, reason in bill.unmeasured.items()),
        f"voxels    {result.voxels:.4g}, {100 * result.voxel_share:.2f} % of constant patch size",
        *_notes(trial),
        f"weights   sha256 {result.weights_sha256}",
        f"predict   {predict_command(trial.folder, trial.spec)}",
    ]
    return "\n".join(lines)


def _metrics(trial: FinishedTrial) -> list[str]:
    """Lines of what was measured beside Dice."""
    metrics = trial.result.metrics
    nsd, hd95 = metrics.get(NSD), metrics.get(HD95)
    return [
        *([] if nsd is None else [f"NSD       {_dice(nsd.mean)}   (tolerance {nsd.tolerance_mm:g} mm)"]),
        *([] if hd95 is None else [f"HD95      {'-' if hd95.mean is None else f'{hd95.mean:.2f} mm'}"]),
    ]


def _notes(trial: FinishedTrial) -> list[str]:
    """Lines of trials that start on some of the cases, or that stopped before their end."""
    spec, stopped = trial.spec, trial.spec.stopped_at(trial.result.iterations)
    lines = [f"note      {remark}" for remark in trial.result.remarks]
    lines += [] if spec.data is None else [f"data      {data_words(spec.axes, spec.data)}"]
    if stopped is not None:
        reached = f"validation Dice {spec.training.stop_at_dice:g} reached"
        lines.append(f"stopped   at iteration {stopped} of {spec.curriculum.total_iterations}: {reached}")
    return lines


def _segment(segment: CostSegment) -> dict[str, Any]:
    header = segment.header
    return {
        "started_at": segment.started_at,
        "ended_at": segment.ended_at,
        "iteration_start": segment.iteration_start,
        "iteration_stop": segment.iteration_stop,
        "seconds": segment.charge.seconds,
        "energy_kwh": segment.charge.energy_kwh,
        "co2_kg": segment.charge.co2_kg,
        "waste_seconds": segment.waste.seconds,
        "hardware": {"host": header.hostname, "cpu": header.cpu_name, "gpus": list(header.gpu_names)},
        "gpu_ids": list(header.gpu_ids),
        "cpu_share": header.cpu_share,
        "concurrent_trials": header.concurrent_trials,
        "meter": record_to_json(header.meter),
    }


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _energy(energy_kwh: float | None, co2_kg: float | None) -> str:
    if energy_kwh is None or co2_kg is None:
        return "energy unmeasured"
    return f"{1000 * energy_kwh:.3f} Wh, {1000 * co2_kg:.3f} g CO2"
