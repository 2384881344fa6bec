"""The kills of a torture: of every sort, in a seeded order, with seeded delays."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

from victims import Moment, Victim

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
