"""Torture: a small study is killed again and again, in every way and at every moment, and resumed by the same command.

    python tests/torture.py --kills 50 --seed 0 --out DIR

The first half of the kills hits a study on a Ray of its own, the second one on a cluster of two nodes. Where a study is
done before the kills are, the same study is begun anew in another folder. At the end each must hold what an undisturbed
one holds. The same seed draws the same kills; what they hit depends on how fast the machine is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from places import OwnRay, TwoNodes
from studies import SOME_FAILED, TRAINING, USER_ERROR, write_space
from tally import Check, check, table
from victims import INT, KILL, MARK, TERM, Kill, Moment, Victim, Watch, cut_power, find, marked, plan

from study.common.errors import StudyError
from study.store.audit import audit
from study.store.ledger import Ledger
from study.store.trial_folder import TrialFolder

# Nothing waits so long unless something hangs.
HANG_SECONDS = 400.0
# After which a rare moment is not waited for any more.
PATIENCE_SECONDS = 120.0
LEAVE_SECONDS = 120.0
MOST_PROBLEMS = 20
INTERRUPTED = 130
# Before a study is under way Python's or Ray's own handler answers a signal.
ENDINGS = {KILL: {-9}, TERM: {INTERRUPTED, -15, 15}, INT: {INTERRUPTED, -2}}
STUDY: dict[str, Any] = {
    "searcher": "grid",
    "trials": None,
    "objectives": None,
    "seeds": [0, 1],
    "resources": {"cpus": 1, "gpus": 0, "concurrent": 2, "data_workers": 0},
    "curriculum": {"scheme": ["pgps", "pgps+", "rpss"]},
    "training": {**TRAINING, "epochs": 16, "iterations_per_epoch": 20, "initial_learning_rate": 2e-3},
}


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A kill that hit, at a time in seconds since the epoch; at another moment than planned if that did not come."""

    kill: Kill
    moment: Moment
    place: str
    at: float

    @property
    def text(self) -> str:
        return str(replace(self.kill, moment=self.moment))


@dataclass(kw_only=True)
class Tortured:
    """What happened.

    Attributes:
        hits: kills; drivers: exit code of each driver; seconds: how long it took.
        problems: what must not happen, in words, one line each.
    """

    folders: list[Path]
    hits: list[Hit] = field(default_factory=list)
    drivers: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Torture:
    """Kills the drivers of one study, and what is below them, as planned.

    Args:
        space, data: of the study.
        folder: where its folders are made.
        say: told what happens, in lines.
    """

    def __init__(self, space: Path, data: Path, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._space, self._data, self._folder, self._say = space, data, folder, say
        self._place = OwnRay()
        self._done = Tortured(folders=[])
        self._driver: subprocess.Popen[bytes] | None = None
        self._sent: set[int] = set()
        self._is_lost = False
        self._moment = Moment.ANY
        self._began = time.monotonic()
        self._next_study()
        self._watch = Watch(self._trials)

    def run(self, kills: Sequence[Kill], place: OwnRay) -> None:
        """Let the kills fall on the study at a place, and leave its driver running there."""
        self._end_driver()
        self._place = place
        for kill in kills:
            while not self._strike(kill):
                if len(self._done.problems) > MOST_PROBLEMS:
                    raise RuntimeError("; ".join(self._done.problems))

    def finish(self) -> Tortured:
        """Run the study to its end without any more kills."""
        self._say("no more kills")
        for _ in range(10):
            if self._run_to_end() == 0:
                break
        else:
            self._problem("the study does not finish")
        self._done.seconds = time.monotonic() - self._began
        return self._done

    # --- one kill ------------------------------------------------------------------------------------------------

    def _strike(self, kill: Kill) -> bool:
        """Whether the kill hit something."""
        if kill.victim is Victim.DRIVER and kill.moment in (Moment.START, Moment.AGAIN):
            self._moment = kill.moment
            if kill.moment is Moment.START or not self._is_running():
                self._end_driver()
                self._run_again()
            return self._kill_driver(kill)
        if not self._is_running() or self._is_ending:
            self._run_again()
        trial = self._wait_for(kill.moment)
        return trial is not None and (
            self._kill_driver(kill) if kill.victim is Victim.DRIVER else self._kill_below(kill, trial)
        )

    def _wait_for(self, moment: Moment) -> TrialFolder | None:
        """A trial at the moment, or at any if it does not come; None when the driver has ended."""
        started = time.monotonic()
        while self._is_running():
            waited = time.monotonic() - started
            self._moment = moment if waited < PATIENCE_SECONDS else Moment.ANY
            trial = self._watch.at(self._moment)
            if trial is not None:
                return trial
            if waited > HANG_SECONDS:
                self._problem(f"no trial is worked on for {waited:.0f} s, waiting until {moment.value}")
                self._end_driver()
                return None
            time.sleep(0.02)
        return None

    def _kill_driver(self, kill: Kill) -> bool:
        assert self._driver is not None
        time.sleep(kill.delay_seconds)
        if not self._is_running():
            return False
        self._driver.send_signal(kill.signal)
        self._sent.add(kill.signal)
        return self._noted(kill)

    def _kill_below(self, kill: Kill, trial: TrialFolder) -> bool:
        time.sleep(kill.delay_seconds)
        process = find(kill.victim, trial)
        if process is None:
            return False
        try:
            if kill.victim is Victim.NODE:
                self._is_lost = not self._place.cut_power(process)
            else:
                process.send_signal(kill.signal)
        except psutil.NoSuchProcess:
            return False
        return self._noted(kill)

    def _noted(self, kill: Kill) -> bool:
        hit = Hit(kill=kill, moment=self._moment, place=self._place.name, at=time.time())
        self._done.hits.append(hit)
        self._watch.reset()
        self._say(f"{len(self._done.hits):3} {hit.text} after {kill.delay_seconds:.1f} s, on {hit.place}")
        return True

    # --- the driver ----------------------------------------------------------------------------------------------

    def _run_again(self) -> None:
        """Have a driver that nothing was sent to; in a new folder when the study is done."""
        code = self._wait_for_end() if self._driver is not None else None
        if code == 0:
            self._next_study()
        self._start()

    def _run_to_end(self) -> int:
        if not self._is_running() or self._is_ending:
            self._wait_for_end()
            self._start()
        return self._wait_for_end()

    def _start(self) -> None:
        self._check_audit()
        words = ["run", str(self._space), "--data", str(self._data), "--out", str(self._out), *self._place.words()]
        number = len(self._done.drivers)
        with (self._folder / f"driver{number}.out").open("wb") as out, self._errors(number).open("wb") as errors:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "study", *words],
                env=self._place.environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                start_new_session=True,
            )
        self._sent, self._is_lost = set(), False
        self._watch.reset()

    def _end_driver(self) -> None:
        """Ctrl-C, which is no kill of the plan's."""
        if self._driver is not None:
            if not self._is_ending:
                self._driver.send_signal(INT)
                self._sent.add(INT)
            self._wait_for_end()

    def _wait_for_end(self) -> int:
        """The exit code of the driver, which must be the one that fits."""
        if self._driver is None:
            return -1
        try:
            code = self._driver.wait(HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self._problem(f"driver {len(self._done.drivers)} hangs")
            cut_power(psutil.Process(self._driver.pid))
            code = self._driver.wait()
        self._driver = None
        self._judge(code)
        self._done.drivers.append(code)
        return code

    def _judge(self, code: int) -> None:
        number = len(self._done.drivers)
        errors = self._errors(number).read_text()
        legal = {0, SOME_FAILED}.union(*(ENDINGS[sent] for sent in self._sent))
        if self._is_lost:
            legal.add(USER_ERROR)
        said = errors.strip().splitlines()[-1] if errors.strip() else ""
        self._say(f"    driver {number} ended with {code} {said[:150]}")
        if code not in legal:
            self._problem(f"driver {number} ended with {code}: {said}")
        # Python itself answers a Ctrl-C before the program has begun.
        if "Traceback" in errors and code != -INT:
            self._problem(f"driver {number} printed a traceback: {said}")

    @property
    def _is_ending(self) -> bool:
        return bool(self._sent) or self._is_lost

    def _is_running(self) -> bool:
        return self._driver is not None and self._driver.poll() is None

    def _errors(self, number: int) -> Path:
        return self._folder / f"driver{number}.err"

    # --- the study -----------------------------------------------------------------------------------------------

    def _next_study(self) -> None:
        self._out = self._folder / f"study{len(self._done.folders)}"
        self._done.folders.append(self._out)

    def _trials(self) -> list[TrialFolder]:
        return Ledger(self._out).trials()

    def _check_audit(self) -> None:
        if (self._out / "study.json").exists():
            try:
                audit(Ledger.open(self._out))
            except StudyError as error:
                self._problem(f"the audit refuses a study that was only killed: {error}")

    def _problem(self, text: str) -> None:
        self._done.problems.append(text)
        self._say(f"PROBLEM: {text}")


@contextmanager
def leaving_nothing(problems: list[str]) -> Iterator[None]:
    """All that is started within carries a mark; what does not leave in time is a problem, and ended."""
    mark = uuid4().hex
    os.environ[MARK] = mark
    try:
        yield
        deadline = time.monotonic() + LEAVE_SECONDS
        while (left := marked(mark)) and time.monotonic() < deadline:
            time.sleep(0.5)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                problems.append(f"a process stays: {process.pid} {' '.join(process.cmdline())[:200]}")
    finally:
        del os.environ[MARK]
        for process in marked(mark):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def undisturbed(space: Path, data: Path, out: Path) -> Ledger:
    """The study, run once without a kill."""
    command = [sys.executable, "-m", "study", "run", str(space), "--data", str(data), "--out", str(out)]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return Ledger.open(out)


def torture(space: Path, data: Path, folder: Path, kills: Sequence[Kill], say: Callable[[str], None]) -> Check:
    """Torture a study on both places, half of the kills each; what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    problems: list[str] = []
    with leaving_nothing(problems):
        reference = undisturbed(space, data, folder / "undisturbed")
        say("the undisturbed study is done")
        victim = Torture(space, data, folder, say)
        half = len(kills) // 2
        victim.run(kills[:half], OwnRay())
        with TwoNodes() as nodes:
            victim.run(kills[half:], nodes)
            done = victim.finish()
    done.problems += problems
    return check(reference, done)


def main() -> int:
    """The command line."""
    from prepared import prepare_phantoms

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--data", type=Path, metavar="DIR", help="prepared phantoms, made if not given")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"--out: {args.out} is there already, name a new folder")
    args.out.mkdir(parents=True)
    if args.data is None:
        prepare_phantoms(args.out / "data")
    space = write_space(args.out, **STUDY)
    result = torture(space, args.data or args.out / "data", args.out / "torture", plan(args.kills, args.seed), _say)
    print(table(result))
    return 1 if result.problems else 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
