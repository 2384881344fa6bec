"""What can befall the records of a finished trial, and what is said of it.

The trial is `test_audit.interrupted()`: five attempts, 21 lines of costs, three epochs of ten iterations.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples import make_spec

from study.store.specification import TrialSpec
from study.store.trial_folder import COSTS, EPOCHS, EVENTS, RESULT, SPEC, TrialFolder

Write = Callable[[TrialFolder], object]
PER_EPOCH, EPOCH_COUNT = 10, 3
FIRST, SECOND = "attempts/000.json", "attempts/001.json"


def small_spec(seed: int = 0) -> TrialSpec:
    return make_spec("cps", seed=seed, training={"epochs": EPOCH_COUNT, "iterations_per_epoch": PER_EPOCH})


def rewritten(name: str, change: Callable[[list[str]], list[str]]) -> Write:
    """Other lines in a file."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))

    return damage


def drop(name: str, *dropped: int) -> Write:
    """Take lines out of a file."""
    return rewritten(
        name, lambda lines: [line for n, line in enumerate(lines) if not {n, n - len(lines)} & set(dropped)]
    )


def reverse(name: str) -> Write:
    return rewritten(name, lambda lines: lines[::-1])


def changed(text: str, changes: dict[str, Any]) -> str:
    """An object with other fields; those within one are named with a dot."""
    data = json.loads(text)
    for name, value in changes.items():
        outer, _, inner = name.rpartition(".")
        (data[outer] if outer else data)[inner] = value
    return json.dumps(data)


def change(name: str, line: int = 0, /, **changes: Any) -> Write:
    """Change fields of a document, or of a line."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        if path.suffix == ".json":
            path.write_text(changed(path.read_text(), changes))
        else:
            rewritten(name, lambda lines: [*lines[:line], changed(lines[line], changes), *lines[line:][1:]])(folder)

    return damage


def repeat(name: str, line: int, **changes: Any) -> Write:
    """Write a line again behind itself, perhaps changed."""
    return rewritten(name, lambda lines: [*lines[: line + 1], changed(lines[line], changes), *lines[line + 1 :]])


def measured(name: str, **changes: Any) -> Write:
    """A result with a metric of its two cases, the second of which has no class."""
    cases = {"case_1": {"1": 0.9, "2": 0.7}, "case_2": {"1": None, "2": None}}
    return change(RESULT, metrics={name: {"mean": 0.8, "per_case_and_class": cases, "tolerance_mm": 1, **changes}})


def put(name: str, make: Callable[[Path], object]) -> Write:
    """Something else in the place of a file or folder."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def text(name: str, content: str) -> Write:
    return put(name, lambda path: path.write_text(content))


# What may stand where a file was. A result that is a link to nowhere is as if there were none.
THINGS: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.write_text("null"),
    "a list": lambda path: path.write_text("[]"),
    "brackets without end": lambda path: path.write_text("[" * 100_000),
    "any bytes": lambda path: path.write_bytes(bytes(range(256))),
    "UTF-16": lambda path: path.write_text("{}", encoding="utf-16"),
}
FILES = (SPEC, RESULT, COSTS, EPOCHS, EVENTS, SECOND)
NUMBER, WHOLE = "legal is a valid number", "legal is a valid integer"
OWN = {"cpu_kwh": 0, "idle_cpu_kwh": 0, "gpu_kwh": 0, "ram_kwh": 0}
PART = {"stage": 0, "iterations": 0, "seconds": 1.0}
ENERGETIC = {"case_1": {"1": 1e308, "2": 1e308}, "case_2": {}}

# Fields whose value cannot be: file, line, name, value -> what is said of it.
VALUES: list[tuple[str, int, str, Any, str]] = [
    (COSTS, 0, "seconds", "1", f"line 1 is no record of this file .seconds: received '1', {NUMBER}"),
    (COSTS, 0, "seconds", -1.0, "line 1 .*seconds: received -1.0, legal is greater than or equal to 0"),
    (COSTS, 0, "cpu_kwh", -1.0, "cpu_kwh: received -1.0, legal is greater than or equal to 0"),
    (COSTS, 0, "ram_kwh", float("inf"), "ram_kwh: received inf, legal is a finite number"),
    (COSTS, 2, "seconds", 1e300, "line 3 .*seconds: received 1e[+]300, legal is less than or equal to 100000000"),
    (COSTS, 2, "cpu_kwh", 1e9, "line 3 .*cpu_kwh: received 1000000000.0, legal is less than"),
    (COSTS, 2, "stage", 0.5, f"stage: received 0.5, {WHOLE}"),
    (COSTS, 2, "phase", "rest", "phase: received 'rest', legal is 'setup', 'training', 'online_validation' or"),
    (COSTS, 2, "use", {"own_cpu_seconds": 1, "cpu_seconds": 1, "trials": 0}, "use.trials: received 0, legal is"),
    (COSTS, 2, "own", {**OWN, "cpu_kwh": -1}, "line 3 .*own.cpu_kwh: received -1, legal is"),
    (COSTS, 0, "own", {**OWN, "ram_kwh": 9.0}, "line 1 has 9.0 of 0.0 kWh of the RAM are the trial's"),
    (COSTS, 0, "parts", [{"stage": 0}], "line 1 is no record of this file .parts.0.iterations is missing"),
    (COSTS, 0, "parts", [{**PART, "stage": "0"}], f"parts.0.stage: received '0', {WHOLE}"),
    (COSTS, 0, "parts", [{**PART, "stage": 1}], "line 1 has stage 1 of 1"),
    (COSTS, 0, "parts", [{**PART, "iterations": 2}], "line 1 has parts of 2 iterations"),
    (COSTS, 0, "stage", 9, "line 1 has stage 9 of 1"),
    (COSTS, 2, "phase", "final_validation", "line 3 has iterations of final_validation"),
    (COSTS, 2, "iteration_stop", 0, "attempt 0 has a gap|line 3 has iterations from 5 back to 0|is there twice"),
    (EPOCHS, 0, "iteration", 11, "epoch 0 ends at iteration 11"),
    (EPOCHS, 0, "epoch", 9, "epoch 9 is beyond the 3 specified"),
    (EPOCHS, 0, "pseudo_dice", -0.5, "line 1 .*pseudo_dice: received -0.5, legal is"),
    (EPOCHS, 1, "training_loss", float("nan"), "line 2 .*training_loss: received nan, legal is a finite number"),
    (EPOCHS, 1, "stage", 1, "epoch 1 has stage 1 of 1"),
    (FIRST, 0, "cpus_of_node", 0, "cpus_of_node: received 0, legal is greater than or equal to 1"),
    (FIRST, 0, "cpus", -1, "cpus: received -1, legal is greater than 0"),
    (FIRST, 0, "started_at", 1e11, "started_at: received 100000000000.0, legal is less than"),
    (SECOND, 0, "resumed_from_iteration", "10", f"resumed_from_iteration: received '10', {WHOLE}"),
    (SECOND, 0, "device", "toaster", "device: received 'toaster', legal is another value"),
    (SECOND, 0, "inputs", {"plans": 1}, "inputs.plans: received 1, legal is a valid string"),
    (SECOND, 0, "execution", [{"stage": 0, "reason": 5}], "execution.0.reason: received 5, legal is a valid string"),
    (SECOND, 0, "meter.carbon_intensity_kg_per_kwh", 1e9, "kwh: received 1000000000.0, legal is less than or equal"),
    (SECOND, 0, "meter.pue", 0.0, "meter.pue: received 0.0, legal is greater than or equal to 1"),
    (SECOND, 0, "meter.cpu_tdp_watts", "65", f"meter.cpu_tdp_watts: received '65', {NUMBER}"),
    (RESULT, 0, "dice", 1.5, "dice: received 1.5, legal is less than or equal to 1"),
    (RESULT, 0, "dice", "0.9", f"dice: received '0.9', {NUMBER}"),
    (RESULT, 0, "dice", float("nan"), "dice: received nan, legal is a finite number"),
    (RESULT, 0, "dice_per_class", {"1": "x"}, f"dice_per_class.1: received 'x', {NUMBER}"),
    (RESULT, 0, "dice_per_class", {"1": 0.9, "2": 0.8}, "not the mean of its"),
    (RESULT, 0, "dice_per_case", {"case_1": 0.2, "case_2": None}, "not the mean of its"),
    (RESULT, 0, "dice_per_case", {"case_1": 0.75}, "its cases are others by class"),
    (RESULT, 0, "dice_per_case", {}, "dice_per_case: received {}, legal is .*at least 1 item"),
    (RESULT, 0, "iterations", 29, "voxels cannot be those of its curriculum"),
    (RESULT, 0, "voxels", 1, "1 voxels cannot be those of its curriculum"),
    (RESULT, 0, "voxels", 2**70, f"voxels: received {2**70}, legal is less than or equal to {2**63 - 1}"),
    (RESULT, 0, "voxel_share", 0.1, "a voxel share of 0.1"),
    (RESULT, 0, "weights_sha256", "abc", "weights_sha256: received 'abc', legal is another value"),
    (RESULT, 0, "weights_sha256", "z" * 64, "weights_sha256: received 'zzz"),
    (RESULT, 0, "remarks", [1], "remarks.0: received 1, legal is a valid string"),
    (RESULT, 0, "remarks", "words", "remarks: received 'words', legal is a valid array"),
    (SPEC, 0, "fold", 3, "specifies trial"),
    (SPEC, 0, "seed", 2**70, "specifies trial"),
    (SPEC, 0, "scheme", "other", "there is no scheme 'other'"),
    (EVENTS, 0, "time", 1e300, "line 1 is of the time"),
    (EVENTS, -1, "attempt", 99, "is of attempt 99 of 5; "),
    (EVENTS, 1, "reason", {"a": 1}, "line 2 has values of another kind"),
]

# What is done to a finished trial -> the file that is named, and what is said about it.
DAMAGES: dict[str, tuple[Write, str, str]] = {
    **{
        f"{name} {line}: {field} {str(value)[:30]}": (change(name, line, **{field: value}), name, said)
        for name, line, field, value, said in VALUES
    },
    "first cost": (drop(COSTS, 0, 1), COSTS, "attempt 0 has a gap at iteration 0"),
    "cost within": (drop(COSTS, 2), COSTS, "attempt 0 has a gap at iteration 5"),
    "last costs": (drop(COSTS, -1, -2, -3), COSTS, "it has .* of .* lines"),
    "all costs": (drop(COSTS, *range(17)), COSTS, "it lacks iterations 0 to 10"),
    "cost of no attempt": (change(COSTS, attempt=9), "attempts/009.json", "is not there and costs.jsonl has its"),
    "first epoch": (drop(EPOCHS, 0), EPOCHS, "epoch 0 is missing"),
    "epoch within": (drop(EPOCHS, 1), EPOCHS, "epoch 1 is missing"),
    "last epoch": (drop(EPOCHS, -1), EPOCHS, "it has 2 of the 3 epochs trained"),
    "all epochs": (drop(EPOCHS, 0, 1, 2), EPOCHS, "it has 0 of the 2 epochs trained"),
    "first attempt": (put(FIRST, lambda path: None), "attempts", r"they are numbered \[1, 2, 3, 4\]"),
    "last attempt": (put("attempts/004.json", lambda path: None), "attempts/004.json", "is not there and costs.jsonl"),
    "no specification": (put(SPEC, lambda path: None), SPEC, "is not there and the trial has begun"),
    "a line twice": (repeat(COSTS, 0), COSTS, "line 2 is there twice"),
    "a line with another time": (repeat(COSTS, 0, started_at=7.0), COSTS, "it has 22 of 21 lines"),
    "lines out of order": (reverse(COSTS), COSTS, "after one of attempt"),
    "epochs out of order": (reverse(EPOCHS), EPOCHS, "epoch 2 is out of order"),
    "an epoch again and again": (
        lambda folder: [repeat(EPOCHS, 0, pseudo_dice=0.99)(folder) for _ in range(9)],
        EPOCHS,
        "epoch 0 is out of order",
    ),
    "events out of order": (reverse(EVENTS), EVENTS, "is out of order; delete it"),
    "lines that were never counted": (change(EVENTS, -1, cost_lines=-1), COSTS, "it has 21 of -1 lines"),
    "no header's number": (change(SECOND, attempt=3), "attempts", r"they are numbered \[0, 3, 2, 3, 4\]"),
    "a header twice": (
        lambda folder: shutil.copy(folder.path / FIRST, folder.path / "attempts/copy.json"),
        "attempts",
        "they are numbered",
    ),
    "an unknown field": (change(SECOND, colour="red"), SECOND, "colour: received 'red', legal is"),
    "an unknown metric": (measured("hd100"), RESULT, "metrics.hd100.*received 'hd100', legal is another value"),
    "a metric's mean": (measured("nsd", mean=0.9), RESULT, "its nsd 0.9 is not the mean of its parts"),
    "a metric of other cases": (
        measured("nsd", per_case_and_class={"case_9": {"1": 0.8}}),
        RESULT,
        "its nsd are of other cases than its Dice",
    ),
    "no tolerance": (measured("nsd", tolerance_mm=None), RESULT, "its nsd have the tolerance None"),
    "a tolerance in words": (measured("nsd", tolerance_mm="1"), RESULT, f"tolerance_mm: received '1', {NUMBER}"),
    "a distance beyond any image": (
        measured("hd95_mm", mean=1e308, per_case_and_class=ENERGETIC),
        RESULT,
        "case_1.1: received 1e[+]308, legal is less than",
    ),
    **{
        f"{thing} for {name}": (put(name, make), name.partition("/")[0] if thing == "a folder" else name, "")
        for name in FILES
        for thing, make in THINGS.items()
        if (thing, name) != ("a link to itself", RESULT)
    },
    "a file for the attempts": (put("attempts", Path.touch), "attempts", ""),
    "no JSON": (text(COSTS, "{}x\n"), COSTS, "line 1 is not a JSON object; restore it .* or delete .* to train"),
    "no event": (text(EVENTS, '{"time":1}\n'), EVENTS, r"line 1 .*\(event is missing\); delete it: it tells"),
    "no time": (text(EVENTS, '{"event":"x","time":"y"}\n'), EVENTS, "line 1 .*a name and a time"),
    "no header": (text(FIRST, "{}"), FIRST, "attempt is missing; restore it"),
    "header cut": (text(FIRST, '{"attempt'), FIRST, "EOF while parsing a string"),
    "an empty result": (text(RESULT, ""), RESULT, "EOF while parsing .*; delete it, and the same command validates"),
    "another specification": (text(SPEC, '{"curriculum": 7}'), SPEC, "delete it, and the same command writes it"),
}
