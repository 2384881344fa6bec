"""The same trial trained alone and beside busy neighbours: what it is charged, and what a report says of its time.

The neighbours share the trial's core. What is checked is exact on any machine: a trial is charged for the CPU seconds
that the operating system counts for its own processes, at the same watts. How many of these the same work takes beside
neighbours is up to the machine's caches: docs/measurements.md gives the figures of one, and the test prints its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from neighbours import busy_neighbours, on_one_core
from prepared import CUBE, NUMBER

from study.run.meter import OWN_MODELLED
from study.store.ledger import Ledger
from study.store.records import Phase

pytestmark = pytest.mark.cluster
NOTE = "The same work (patch, batch, hardware) took up to"


def train(data: Path, out: Path) -> float:
    """A short trial by the verb, in a process of its own; the CPU seconds of that process and all below it."""
    words = (
        f"trial --dataset {NUMBER} --plans {CUBE} --scheme cps --optimizer adamw --epochs 4 --iterations-per-epoch 40 "
        "--validation-batches 2 --no-mirroring --device cpu --cpus 1 --data-workers 0 --country FRA"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("study", *words.split(), "--data", data, "--out", out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(module: str, *words: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)


def trained(out: Path) -> dict[str, float]:
    """What the training of the only trial took; CPU energy is that of its processes, apart from idling."""
    (folder,) = Ledger.open(out).trials()
    rows = [row for row in folder.cost_intervals() if row.phase is Phase.TRAINING]
    return {
        "cpu_wh": 1000 * sum(row.own.cpu_kwh for row in rows),
        "idle_wh": 1000 * sum(row.own.idle_cpu_kwh for row in rows),
        "cpu_seconds": sum(row.use.own_cpu_seconds for row in rows),
        "others_cpu_seconds": sum(row.use.cpu_seconds - row.use.own_cpu_seconds for row in rows),
        "seconds": sum(row.seconds for row in rows),
    }


def modelled(out: Path) -> bool:
    """Whether a busy core's watts are a constant here; RAPL counts what they are."""
    (folder,) = Ledger.open(out).trials()
    return folder.attempts()[0].meter.methods["cpu"] == OWN_MODELLED


def test_a_trial_is_charged_for_its_own_processes_beside_busy_neighbours_and_its_report_tells_of_them(
    data: Path, tmp_path: Path
) -> None:
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    with on_one_core():
        worked_seconds = {alone: train(data, alone)}
        with busy_neighbours(2):
            worked_seconds[beside] = train(data, beside)
    charged = {out: trained(out) for out in (alone, beside)}
    print(json.dumps({out.name: row for out, row in charged.items()}, indent=1))
    for out, row in charged.items():
        assert row["cpu_seconds"] <= worked_seconds[out] + 0.1, "somebody else's work is charged to the trial"
    wh_per_second = {out: row["cpu_wh"] / row["cpu_seconds"] for out, row in charged.items()}
    if modelled(alone):
        assert wh_per_second[beside] == pytest.approx(wh_per_second[alone], rel=1e-6)
    assert charged[beside]["others_cpu_seconds"] > charged[beside]["cpu_seconds"]

    # The second study with the first one for comparison: beside its front and at the head of its report.
    both, written = (beside, alone), tmp_path / "report"
    assert NOTE in run("analysis", "front", *both).stderr
    run("analysis", "report", *both, "--out", written)
    assert NOTE in (written / "report.html").read_text()
