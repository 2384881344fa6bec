"""The same trial trained alone and beside busy neighbours: what it is charged, and what a report says of its time.

The neighbours share the trial's core, so the trial has a third of the time and its work is the same. What is compared
is the CPU energy that its own processes draw; idle power is charged by time and told apart. Neighbours on other cores
are another matter: where they share a cache or the threads of a core, the work itself takes more CPU time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from neighbours import busy_neighbours, on_one_core
from prepared import CUBE, NUMBER

from study.store.ledger import Ledger
from study.store.records import Phase

pytestmark = pytest.mark.cluster
NOTE = "The same work (patch, batch, hardware) took up to"


def train(data: Path, out: Path) -> None:
    """A short trial by the verb, in a process of its own."""
    words = (
        f"trial --dataset {NUMBER} --plans {CUBE} --scheme cps --optimizer adamw --epochs 4 --iterations-per-epoch 40 "
        "--validation-batches 2 --no-mirroring --device cpu --cpus 1 --data-workers 0 --country FRA"
    )
    run("study", *words.split(), "--data", data, "--out", out)


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


def test_a_trial_costs_the_same_cpu_energy_beside_busy_neighbours_and_its_report_tells_of_them(
    data: Path, tmp_path: Path
) -> None:
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    with on_one_core():
        train(data, alone)
        with busy_neighbours(2):
            train(data, beside)
    energy = {out.name: trained(out) for out in (alone, beside)}
    print(json.dumps(energy, indent=1))
    assert energy["beside"]["cpu_wh"] == pytest.approx(energy["alone"]["cpu_wh"], rel=0.15)
    assert energy["beside"]["others_cpu_seconds"] > energy["beside"]["cpu_seconds"]

    # The second study with the first one for comparison: beside its front and at the head of its report.
    both, written = (beside, alone), tmp_path / "report"
    assert NOTE in run("analysis", "front", *both).stderr
    run("analysis", "report", *both, "--out", written)
    assert NOTE in (written / "report.html").read_text()
