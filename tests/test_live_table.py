"""What a running study says: a line for each trial that ends, the time left, and at last the way on."""

from __future__ import annotations

import io
import itertools
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from examples import HEADER, complete, make_interval, make_spec

from study.cli.live import LiveTable, closing
from study.common.tables import PlainConsole
from study.common.terminal import python, time_left
from study.store.ledger import Ledger
from study.store.status import study_status
from study.store.trial_folder import TrialFolder, TrialState


def finished(ledger: Ledger, scheme: str, *, dice: float = 0.75, budget: float = 1.0) -> TrialFolder:
    trial = ledger.add(make_spec(scheme, budget=budget))
    trial.begin_attempt(HEADER)
    trial.append_cost(make_interval(0, trial.spec().curriculum.total_iterations, seconds=40.0))
    complete(trial, dice=dice)
    return trial


def test_a_line_for_every_trial_that_ends_with_the_time_left(ledger: Ledger) -> None:
    before = finished(ledger, "rpss")
    said, now = io.StringIO(), itertools.count(0, 60)
    with LiveTable(ledger, PlainConsole(said, width=200), clock=lambda: next(now)) as table:
        table.begin(3)
        table.refresh()
        assert said.getvalue() == ""
        first = finished(ledger, "pgps+", budget=0.5)
        table.refresh()
        table.refresh()
        bad = ledger.add(make_spec("cps"))
        bad.fail(reason="out of memory: [Errno 12]", state=TrialState.INFEASIBLE)
        table.refresh()
        last = finished(ledger, "pgps", dice=0.8)
    lines = said.getvalue().splitlines()
    # Begun after a minute: one trial took one, two took two.
    assert lines[:3] == [
        f"{first.trial_id}  pgps+ at 50 %  Dice 0.7500  40.0 s  (1 of 3, about 0:02:00 left)",
        f"{bad.trial_id}  cps  infeasible: out of memory: [Errno 12]  (2 of 3, about 0:01:00 left)",
        f"{last.trial_id}  pgps  Dice 0.8000  40.0 s  (3 of 3)",
    ]
    table_of_all = "\n".join(lines[3:])
    assert all(trial.trial_id in table_of_all for trial in (before, first, bad, last))


def test_more_trials_than_were_announced_have_no_time_left(ledger: Ledger) -> None:
    said = io.StringIO()
    with LiveTable(ledger, PlainConsole(said, width=200)) as table:
        table.begin(0)
        finished(ledger, "pgps")
        table.refresh()
    assert said.getvalue().splitlines()[0].endswith("  (1 of 1)")


def test_the_last_lines_name_the_best_trial_and_a_command_that_runs(ledger: Ledger) -> None:
    finished(ledger, "rpss")
    best = finished(ledger, "pgps", dice=0.8)
    counts, named, way = closing(ledger.root, study_status(ledger), "front", "--json")
    assert counts == f"{ledger.root}: 2 finished"
    assert named == f"best    {best.trial_id}  pgps  Dice 0.8000  40.0 s"
    command = shlex.split(way.removeprefix("next    "))
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert best.trial_id in answer.stdout


def test_without_a_finished_trial_no_way_on_is_named(ledger: Ledger) -> None:
    ledger.add(make_spec("pgps"))
    assert closing("s3://bucket/study", study_status(ledger), "report") == ["s3://bucket/study: 1 new"]


def test_python_is_named_so_that_a_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "a folder" / "bin" / "python"
    here.parent.mkdir(parents=True)
    here.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(here))
    monkeypatch.setenv("PATH", "/bin")
    assert python() == f"'{here}'"
    monkeypatch.chdir(tmp_path)
    assert python() == "'a folder/bin/python'"
    monkeypatch.setenv("PATH", str(here.parent))
    assert python() == "python"


@pytest.mark.parametrize(("seconds", "words"), [(0.9, "0:00:00"), (61, "0:01:01"), (90061.0, "25:01:01")])
def test_time_left_is_hours_minutes_seconds(seconds: float, words: str) -> None:
    assert time_left(seconds) == words
