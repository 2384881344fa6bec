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

from study.common import files
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

Write = Callable[[TrialFolder], object]
PER_EPOCH, EPOCHS = 10, 3


def small_spec(seed: int = 0) -> TrialSpec:
    return make_spec("cps", seed=seed, training={"epochs": EPOCHS, "iterations_per_epoch": PER_EPOCH})


def drop(name: str, *lines: int) -> Write:
    """Take lines out of a file."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        kept = path.read_bytes().splitlines(keepends=True)
        for line in sorted((range(len(kept))[line] for line in lines), reverse=True):
            del kept[line]
        path.write_bytes(b"".join(kept))

    return damage


def remove(name: str) -> Write:
    return lambda folder: (folder.path / name).unlink()


def change(name: str, **changes: Any) -> Write:
    """Change fields of a document, or of a file's first line."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        first, newline, rest = path.read_text().partition("\n") if name.endswith("l") else (path.read_text(), "", "")
        path.write_text(json.dumps({**json.loads(first), **changes}) + newline + rest)

    return damage


def repeat(name: str, line: int, **changes: Any) -> Write:
    """Write a line again behind itself, perhaps changed."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        lines = path.read_text().splitlines()
        lines.insert(line + 1, json.dumps({**json.loads(lines[line]), **changes}))
        path.write_text("\n".join(lines) + "\n")

    return damage


def reverse(name: str) -> Write:
    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")

    return damage


def alter(name: str, line: int, **changes: Any) -> Write:
    """Change fields of a line."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        lines = path.read_text().splitlines()
        lines[line] = json.dumps({**json.loads(lines[line]), **changes})
        path.write_text("\n".join(lines) + "\n")

    return damage


def meter(**changes: Any) -> Write:
    def damage(folder: TrialFolder) -> None:
        path = folder.path / "attempts/001.json"
        header = json.loads(path.read_text())
        path.write_text(json.dumps({**header, "meter": {**header["meter"], **changes}}))

    return damage


def measured(name: str, **changes: Any) -> Write:
    """A result with a metric of its two cases, the second of which has no class."""
    cases = {"case_1": {"1": 0.9, "2": 0.7}, "case_2": {"1": None, "2": None}}
    return change(
        "result.json", metrics={name: {"mean": 0.8, "per_case_and_class": cases, "tolerance_mm": 1, **changes}}
    )


def put(name: str, make: Callable[[Path], object]) -> Write:
    """Something else in the place of a file or folder."""

    def damage(folder: TrialFolder) -> None:
        path = folder.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


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
}
FILES = ("spec.json", "result.json", "costs.jsonl", "epochs.jsonl", "events.jsonl", "attempts/001.json")

# What is done to a finished trial -> the file that is named, and what is said about it.
DAMAGES: dict[str, tuple[Write, str, str]] = {
    "first cost": (drop("costs.jsonl", 0, 1), "costs.jsonl", "attempt 0 has a gap at iteration 0"),
    "cost within": (drop("costs.jsonl", 2), "costs.jsonl", "attempt 0 has a gap at iteration 5"),
    "last costs": (drop("costs.jsonl", -1, -2, -3), "costs.jsonl", "it has .* of .* lines"),
    "all costs": (drop("costs.jsonl", *range(17)), "costs.jsonl", "it lacks iterations 0 to 10"),
    "cost of another kind": (change("costs.jsonl", seconds="1"), "costs.jsonl", "line 1 has values of another kind"),
    "cost below nothing": (change("costs.jsonl", seconds=-1.0), "costs.jsonl", "line 1 has values of another kind"),
    "cost of no attempt": (change("costs.jsonl", attempt=9), "attempts/009.json", "is not there and costs.jsonl has"),
    "first epoch": (drop("epochs.jsonl", 0), "epochs.jsonl", "epoch 0 is missing"),
    "epoch within": (drop("epochs.jsonl", 1), "epochs.jsonl", "epoch 1 is missing"),
    "last epoch": (drop("epochs.jsonl", -1), "epochs.jsonl", "it has 2 of the 3 epochs trained"),
    "all epochs": (drop("epochs.jsonl", 0, 1, 2), "epochs.jsonl", "it has 0 of the 2 epochs trained"),
    "epoch elsewhere": (change("epochs.jsonl", iteration=11), "epochs.jsonl", "epoch 0 ends at iteration 11"),
    "first attempt": (remove("attempts/000.json"), "attempts", r"they are numbered \[1, 2, 3, 4\]"),
    "last attempt": (remove("attempts/004.json"), "attempts/004.json", "is not there and costs.jsonl has its costs"),
    "attempt of another kind": (
        change("attempts/001.json", resumed_from_iteration="10"),
        "attempts/001.json",
        "it has values of another kind",
    ),
    "another trial": (
        lambda folder: files.write_json(folder.path / "spec.json", small_spec(seed=7).to_json()),
        "spec.json",
        "specifies trial",
    ),
    "changed setting": (change("spec.json", fold=3), "spec.json", "specifies trial"),
    "no specification": (remove("spec.json"), "spec.json", "is not there and the trial has begun"),
    "dice": (change("result.json", dice=1.5), "result.json", "dice 1.5 is no number from 0 to 1"),
    "dice of another kind": (change("result.json", dice="0.9"), "result.json", "dice '0.9' is no number from 0 to 1"),
    "dice by class": (change("result.json", dice_per_class={"1": "x"}), "result.json", "by class and case are no numb"),
    "iterations": (change("result.json", iterations=29), "result.json", "voxels cannot be those of its curriculum"),
    "dice of a class": (
        change("result.json", dice_per_class={"1": 0.9, "2": 0.8}),
        "result.json",
        "not the mean of its",
    ),
    "dice of a case": (
        change("result.json", dice_per_case={"case_1": 0.2, "case_2": None}),
        "result.json",
        "not the mea",
    ),
    "a case lost": (
        change("result.json", dice_per_case={"case_1": 0.75}),
        "result.json",
        "its cases are others by class",
    ),
    "not a number": (change("result.json", dice=float("nan")), "result.json", "dice nan is no number"),
    "voxels": (change("result.json", voxels=1), "result.json", "1 voxels cannot be those of its curriculum"),
    "voxel share": (change("result.json", voxel_share=0.1), "result.json", "a voxel share of 0.1"),
    "too many voxels": (change("result.json", voxels=2**70), "result.json", f"{2**70} voxels"),
    "a line twice": (repeat("costs.jsonl", 0), "costs.jsonl", "line 2 is there twice"),
    "a line with another time": (repeat("costs.jsonl", 0, started_at=7.0), "costs.jsonl", "it has 22 of 21 lines"),
    "negative energy": (change("costs.jsonl", cpu_kwh=-1.0), "costs.jsonl", "line 1 has values of another kind"),
    "infinite energy": (
        change("costs.jsonl", ram_kwh=float("inf")),
        "costs.jsonl",
        "line 1 has values of another kind",
    ),
    "more than the whole": (
        change("costs.jsonl", own={"cpu_kwh": 0, "idle_cpu_kwh": 0, "gpu_kwh": 0, "ram_kwh": 9.0}),
        "costs.jsonl",
        "line 1 has 9.0 of 0.0 kWh of the RAM are the trial's",
    ),
    "parts without seconds": (change("costs.jsonl", parts=[{"stage": 0}]), "costs.jsonl", "line 1 is no record"),
    "parts of another kind": (
        change("costs.jsonl", parts=[{"stage": "0", "iterations": 0, "seconds": 1.0}]),
        "costs.jsonl",
        "line 1 has parts of another kind",
    ),
    "a part of a stage too many": (
        change("costs.jsonl", parts=[{"stage": 1, "iterations": 0, "seconds": 1.0}]),
        "costs.jsonl",
        "line 1 has stage 1 of 1",
    ),
    "parts that are more than the whole": (
        change("costs.jsonl", parts=[{"stage": 0, "iterations": 2, "seconds": 1.0}]),
        "costs.jsonl",
        "line 1 has parts of 2 iterations",
    ),
    "a stage too many": (change("costs.jsonl", stage=9), "costs.jsonl", "line 1 has stage 9 of 1"),
    "lines out of order": (reverse("costs.jsonl"), "costs.jsonl", "after one of attempt"),
    "an epoch beyond": (change("epochs.jsonl", epoch=9), "epochs.jsonl", "epoch 9 is beyond the 3 specified"),
    "dice of an epoch": (change("epochs.jsonl", pseudo_dice=-0.5), "epochs.jsonl", "epoch 0 has the Dice -0.5"),
    "no cores": (change("attempts/000.json", cpus_of_node=0), "attempts/000.json", "of 0 cores"),
    "share of cores": (change("attempts/000.json", cpus=-1), "attempts/000.json", "values of another kind"),
    "time of an event": (change("events.jsonl", time=1e300), "events.jsonl", "line 1 is of the time"),
    "another encoding": (
        lambda folder: (folder.path / "attempts/000.json").write_text("{}", encoding="utf-16"),
        "attempts/000.json",
        "damaged",
    ),
    "checksum": (change("result.json", weights_sha256="abc"), "result.json", "its checksum of the weights is none"),
    "a stretch of ages": (alter("costs.jsonl", 2, seconds=1e300), "costs.jsonl", "line 3 has 1e[+]300 s"),
    "energy of a power station": (
        alter("costs.jsonl", 2, cpu_kwh=1e9),
        "costs.jsonl",
        "1000000000.0 kWh",
    ),
    "iterations of a validation": (
        alter("costs.jsonl", 2, phase="final_validation"),
        "costs.jsonl",
        "line 3 has iterations of final_validation",
    ),
    "an unknown phase": (alter("costs.jsonl", 2, phase="rest"), "costs.jsonl", "line 3 is no record"),
    "a part of a stage": (alter("costs.jsonl", 2, stage=0.5), "costs.jsonl", "stage 0.5 of 1"),
    "no trial on the node": (
        alter("costs.jsonl", 2, use={"own_cpu_seconds": 1, "cpu_seconds": 1, "trials": 0}),
        "costs.jsonl",
        "line 3 has values of another kind",
    ),
    "negative own energy": (
        alter("costs.jsonl", 2, own={"cpu_kwh": -1, "idle_cpu_kwh": 0, "gpu_kwh": 0, "ram_kwh": 0}),
        "costs.jsonl",
        "line 3 has values of another kind",
    ),
    "epochs out of order": (reverse("epochs.jsonl"), "epochs.jsonl", "epoch 2 is out of order"),
    "an epoch again and again": (
        lambda folder: [repeat("epochs.jsonl", 0, pseudo_dice=0.99)(folder) for _ in range(9)],
        "epochs.jsonl",
        "epoch 0 is out of order",
    ),
    "a loss that is none": (alter("epochs.jsonl", 1, training_loss=float("nan")), "epochs.jsonl", "of another kind"),
    "events out of order": (reverse("events.jsonl"), "events.jsonl", "is out of order; delete it"),
    "an event of no attempt": (
        alter("events.jsonl", -1, attempt=99),
        "events.jsonl",
        "is of attempt 99 of 5; ",
    ),
    "a reason of another kind": (alter("events.jsonl", 1, reason={"a": 1}), "events.jsonl", "values of another kind"),
    "lines that were never counted": (alter("events.jsonl", -1, cost_lines=-1), "costs.jsonl", "it has 21 of -1 lines"),
    "no header's number": (change("attempts/001.json", attempt=3), "attempts", r"they are numbered \[0, 3, 2, 3, 4\]"),
    "a header twice": (
        lambda folder: shutil.copy(folder.path / "attempts/000.json", folder.path / "attempts/copy.json"),
        "attempts",
        "they are numbered",
    ),
    "a device that is none": (change("attempts/001.json", device="toaster"), "attempts/001.json", "device 'toaster'"),
    "inputs of another kind": (change("attempts/001.json", inputs={"plans": 1}), "attempts/001.json", "another kind"),
    "an execution of another kind": (
        change("attempts/001.json", execution=[{"stage": 0, "reason": 5}]),
        "attempts/001.json",
        "another kind",
    ),
    "more carbon than fuel has": (meter(carbon_intensity_kg_per_kwh=1e9), "attempts/001.json", "kg CO2 per kWh"),
    "a PUE below 1": (meter(pue=0.0), "attempts/001.json", "at a PUE of 0.0"),
    "watts of another kind": (meter(cpu_tdp_watts="65"), "attempts/001.json", "values of another kind"),
    "a seed beyond 64 bits": (change("spec.json", seed=2**70), "spec.json", "specifies trial"),
    "an unknown scheme": (change("spec.json", scheme="other"), "spec.json", "there is no scheme 'other'"),
    "no cases": (change("result.json", dice_per_case={}, dice_per_case_and_class={}), "result.json", "it has no cases"),
    "a remark of another kind": (change("result.json", remarks=[1]), "result.json", "remarks that are no words"),
    "remarks in one word": (change("result.json", remarks="words"), "result.json", "remarks are no list"),
    "a checksum of other letters": (change("result.json", weights_sha256="z" * 64), "result.json", "checksum"),
    "an unknown metric": (measured("hd100"), "result.json", "there is no metric 'hd100'"),
    "a metric's mean": (measured("nsd", mean=0.9), "result.json", "its nsd 0.9 is not the mean of its parts"),
    "a metric of other cases": (
        measured("nsd", per_case_and_class={"case_9": {"1": 0.8}}),
        "result.json",
        "its nsd are of other cases than its Dice",
    ),
    "no tolerance": (measured("nsd", tolerance_mm=None), "result.json", "its nsd have the tolerance None"),
    "a tolerance in words": (measured("nsd", tolerance_mm="1"), "result.json", "its nsd have the tolerance '1'"),
    "a distance beyond any image": (
        measured("hd95_mm", mean=1e308, per_case_and_class={"case_1": {"1": 1e308, "2": 1e308}, "case_2": {}}),
        "result.json",
        "its hd95_mm are no distances or shares",
    ),
    **{
        f"{thing} for {name}": (put(name, make), name.partition("/")[0] if thing == "a folder" else name, "")
        for name in FILES
        for thing, make in THINGS.items()
        if (thing, name) != ("a link to itself", "result.json")
    },
    "a file for the attempts": (put("attempts", Path.touch), "attempts", ""),
}
