"""Holders of a lock that were stopped, replaced meanwhile, and wake up: they say so, end, and write nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from examples import EPOCH, make_interval, make_spec
from locking import QUICK, WAIT_SECONDS, is_mine, line_from, records, wait_until, worker

from study.store import holders, locks
from study.store.holders import STALE_SECONDS
from study.store.ledger import Ledger
from study.store.locks import EXIT_CODE_OF_LOSS, held
from study.store.trial_folder import TrialFolder


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it looks from another machine, to one that waits for next to no time."""
    monkeypatch.setattr(holders, "this_machine", lambda: "another boot")
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.02)


def silence(process: subprocess.Popen[str], lock: Path) -> None:
    """Wait until a process is stopped, then let its silence look an old one."""
    wait_until(
        lambda: Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    )
    os.utime(lock / records(lock)[-1], times=(time.time() - STALE_SECONDS - 1,) * 2)


def test_a_stopped_holder_that_was_replaced_says_so_and_ends_when_it_wakes(lock: Path, impatient: None) -> None:
    with worker(lock, before=QUICK) as process:
        os.kill(process.pid, signal.SIGSTOP)
        silence(process, lock)
        with held(lock):
            os.kill(process.pid, signal.SIGCONT)
            assert process.wait(WAIT_SECONDS) == EXIT_CODE_OF_LOSS
            assert is_mine(lock)
        said = process.stderr.read() if process.stderr else ""
    assert said.startswith(f"error: {lock.parent} was taken over by process {os.getpid()} on ")
    assert said.count("\n") == 1


WRITER = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from examples import EPOCH, HEADER, RESULT, make_interval
from study.common import files
from study.store import locks
from study.store.trial_folder import TrialFolder
locks.BEAT_SECONDS = 0.05
trial = TrialFolder(Path(sys.argv[1]))
once = [True]
def stop(real):
    def wrapped(*arguments):
        # The beat may come here, too; the first of them stops the process, whichever it is.
        if once:
            once.pop()
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments)
    return wrapped
with trial.locked():
    trial.append_cost(make_interval(0, 1))
    trial.append_epoch(EPOCH)
    trial.note("before")
    print("holding", flush=True)
    {stop}
    {act}
    print("written", flush=True)
    os.read(0, 1)
"""
ACTS = {
    "a cost": "trial.append_cost(make_interval(1, 2))",
    "an epoch": "trial.append_epoch(EPOCH)",
    "a note": "trial.note('late')",
    "a result": "trial.finish(RESULT, attempt=0)",
}
STOPS = {
    "before it looks at its lock": "locks.Hold.is_lost = stop(locks.Hold.is_lost)",
    "just before it writes": "files._write_all = stop(files._write_all)",
    "before anything": "os.kill(os.getpid(), signal.SIGSTOP)",
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("act", ACTS)
def test_a_stopped_writer_writes_nothing_after_its_successor_has_begun(
    tmp_path: Path, impatient: None, act: str, stop: str
) -> None:
    if act == "a result" and stop == "just before it writes":
        pytest.skip("a result is no line that is appended")
    trial = Ledger.create(tmp_path / "study").add(make_spec())
    code = WRITER.format(path=[str(Path(__file__).parent)], stop=STOPS[stop], act=ACTS[act])
    command = [sys.executable, "-c", code, str(trial.path)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as one:
        try:
            assert line_from(one) == "holding"
            silence(one, trial.locks_path)
            with trial.locked():
                trial.append_cost(make_interval(0, 1, attempt=1))
                before = content(trial)
                os.kill(one.pid, signal.SIGCONT)
                assert one.wait(WAIT_SECONDS) == EXIT_CODE_OF_LOSS
                assert content(trial) == before
        finally:
            one.kill()
    assert [interval.attempt for interval in trial.cost_intervals()] == [0, 1]
    assert len(trial.epochs()) == 1


def content(trial: TrialFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in trial.path.iterdir() if path.is_file()}


def test_a_writer_that_was_not_replaced_goes_on(tmp_path: Path) -> None:
    trial = Ledger.create(tmp_path / "study").add(make_spec())
    with trial.locked():
        (trial.locks_path / "000001.json").write_text("damaged")
        trial.append_epoch(EPOCH)
    assert len(trial.epochs()) == 1
