"""Whom a test kills, when and with what: processes above a training, found by their ids, and moments of a trial's life.

From a training upwards there are its server, the worker of Ray that started it, the node's raylet. A name is never
searched for: whoever holds a trial's lock is the training, and the others are its ancestors.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import psutil

from study.store import locks
from study.store.trial_folder import TrialFolder

MARK = "PGPS_TEST_MARK"


class Victim(str, Enum):
    """What is killed."""

    DRIVER = "driver"
    TRAINING = "training"
    SERVER = "server"
    WORKER = "worker"
    NODE = "node"


class Moment(str, Enum):
    """When."""

    START = "a driver starts"
    ANY = "a trial is worked on"
    SET_UP = "a training is set up"
    CHECKPOINT = "a checkpoint is written"
    VALIDATION = "the final validation runs"
    AGAIN = "right after the last kill"


# How far each is above the training.
_GENERATIONS = {Victim.TRAINING: 0, Victim.SERVER: 1, Victim.WORKER: 2, Victim.NODE: 3}


def training_process(folder: TrialFolder) -> psutil.Process | None:
    """The process that works on the trial."""
    holder = locks.holder(folder.locks_path)
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(holder.pid) if holder else None
    return None


def find(victim: Victim, folder: TrialFolder) -> psutil.Process | None:
    """The victim that a trial depends on, None when it is gone meanwhile."""
    process = training_process(folder)
    with suppress(psutil.NoSuchProcess):
        for _ in range(_GENERATIONS[victim]):
            process = process.parent() if process else None
        # A training whose server has died belongs to nobody.
        return process if process and process.pid > 1 and _is_right(victim, process) else None
    return None


def _is_right(victim: Victim, process: psutil.Process) -> bool:
    words = {Victim.SERVER: "study.run.trial_server", Victim.WORKER: "ray::", Victim.NODE: "raylet"}
    return words.get(victim, "") in " ".join(process.cmdline())


def cut_power(root: psutil.Process) -> list[psutil.Process]:
    """Kill a process and all below it in one instant: all are stopped before the first one dies."""
    stopped: list[psutil.Process] = []
    while fresh := [process for process in _tree(root) if process not in stopped]:
        for process in fresh:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        stopped += fresh
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return stopped


def marked(mark: str) -> list[psutil.Process]:
    """All processes that descend from one that was started with the mark in its environment, orphans included."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.NoSuchProcess):
            is_marked = wanted in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if is_marked and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _tree(root: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


class Watch:
    """Sees moments come: tells an attempt that begins from those that were there before.

    Args:
        trials: gives the trials of the study.
    """

    def __init__(self, trials: Callable[[], list[TrialFolder]]) -> None:
        self._trials = trials
        self.reset()

    def reset(self) -> None:
        """Count from now on."""
        self._before = Counter({folder.trial_id: _attempts(folder) for folder in self._trials()})
        self._holders = {token for folder in self._trials() if (token := _token(folder))}

    def at(self, moment: Moment) -> TrialFolder | None:
        """A trial that is at the moment now."""
        trials = (folder for folder in self._trials() if training_process(folder) is not None)
        return next((folder for folder in trials if self._is_at(moment, folder)), None)

    def _is_at(self, moment: Moment, folder: TrialFolder) -> bool:
        if moment is Moment.CHECKPOINT:
            return _is_writing(folder)
        if moment is Moment.VALIDATION:
            return any(folder.results_path.glob("*/*/fold_*/checkpoint_final.pth"))
        if moment in (Moment.SET_UP, Moment.AGAIN):
            return _token(folder) not in self._holders and _attempts(folder) == self._before[folder.trial_id]
        return True


def _is_writing(folder: TrialFolder, seconds: float = 2.0) -> bool:
    """Whether a checkpoint is being written within so long: it takes a hundredth of a second."""
    model = next(folder.results_path.glob("*/*/fold_*"), None)
    deadline = time.monotonic() + seconds
    while model is not None and time.monotonic() < deadline:
        if any(path.name.startswith("..checkpoint") for path in model.iterdir()):
            return True
        time.sleep(0.001)
    return False


def _attempts(folder: TrialFolder) -> int:
    return sum(1 for _ in (folder.path / "attempts").glob("[0-9]*.json"))


def _token(folder: TrialFolder) -> str | None:
    holder = locks.holder(folder.locks_path)
    return holder.token if holder else None


# How long after the moment the blow falls, at most.
DELAYS_SECONDS = {Moment.START: 10.0, Moment.ANY: 6.0, Moment.SET_UP: 0.5, Moment.VALIDATION: 1.0, Moment.AGAIN: 1.0}
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill.

    Attributes:
        victim: what is hit; signal: with what; moment: when, and how long after that.
    """

    victim: Victim
    signal: signal.Signals = KILL
    moment: Moment = Moment.ANY
    delay_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.signal.name} to a {self.victim.value} when {self.moment.value}"


def _again(kill: Kill) -> tuple[Kill, Kill]:
    return kill, replace(kill, moment=Moment.AGAIN)


# Kills of one line belong together.
CATALOGUE: Sequence[Sequence[Kill]] = (
    _again(Kill(victim=Victim.TRAINING)),
    [Kill(victim=Victim.TRAINING, moment=Moment.CHECKPOINT)],
    [Kill(victim=Victim.TRAINING, moment=Moment.VALIDATION)],
    [Kill(victim=Victim.TRAINING, moment=Moment.SET_UP)],
    [Kill(victim=Victim.TRAINING, signal=TERM)],
    [Kill(victim=Victim.SERVER)],
    [Kill(victim=Victim.SERVER, moment=Moment.VALIDATION)],
    [Kill(victim=Victim.WORKER)],
    [Kill(victim=Victim.WORKER, moment=Moment.SET_UP)],
    [Kill(victim=Victim.WORKER, moment=Moment.VALIDATION)],
    [Kill(victim=Victim.NODE)],
    [Kill(victim=Victim.NODE, moment=Moment.SET_UP)],
    [Kill(victim=Victim.DRIVER)],
    [Kill(victim=Victim.DRIVER, moment=Moment.START)],
    [Kill(victim=Victim.DRIVER, moment=Moment.VALIDATION)],
    [Kill(victim=Victim.DRIVER, signal=TERM)],
    [Kill(victim=Victim.DRIVER, signal=TERM, moment=Moment.START)],
    _again(Kill(victim=Victim.DRIVER, signal=INT)),
    [Kill(victim=Victim.DRIVER, signal=INT, moment=Moment.CHECKPOINT)],
    [Kill(victim=Victim.TRAINING), Kill(victim=Victim.TRAINING, signal=TERM, moment=Moment.VALIDATION)],
)


def plan(number: int, seed: int) -> list[Kill]:
    """So many kills: the whole catalogue in a drawn order, again and again."""
    generator = random.Random(seed)
    planned: list[Kill] = []
    while len(planned) < number:
        lines = list(CATALOGUE)
        generator.shuffle(lines)
        planned += [_drawn(kill, generator) for line in lines for kill in line]
    return planned[:number]


def _drawn(kill: Kill, generator: random.Random) -> Kill:
    return replace(kill, delay_seconds=generator.uniform(0, DELAYS_SECONDS.get(kill.moment, 0.0)))
