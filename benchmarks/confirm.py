"""Whether P(on front) of a confirmation means what it says, and what it costs against confirming everything.

Made-up races whose truth is known. A race has 12 to 36 points whose cost spans a factor of ten; their true Dice is a
saturating curve of the cost (1 to 8 points of Dice), and 0.001 to 0.012 SD of each point's own around it. A training
shows that Dice

    + what its fold is worth to all points (the mean of 52 cases, each 0.05 SD)
    + what its fold is worth to this point (0.001 to 0.005 SD)
    + the mean of what 52 cases are worth to this point (each 0.005 to 0.025 SD)
    + a training's own luck (0.001 to 0.008 SD, in every second race twice as much at no cost as at the highest),

every range drawn evenly in the logarithm. The search trained each point once, on fold 0; folds 1 to 4 are left. The
truth is the Dice of a point without any of the four; `race` sees Dice and cases alone, as it does of a study. Races
whose seed is a multiple of three are held out: nothing was chosen on them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from study.search.race import LIKELY, Belief, Race, Training, case_deviation, next_training

Array = NDArray[np.float64]
FOLDS, CASES, HELD_OUT = 5, 52, 3
EDGES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A race whose truth is known.

    Attributes:
        costs, dice: of each point, (points,); on_front: whether nothing beats it.
        shown: Dice of each training, (points, folds); cases: of those of fold 0, (points, cases).
    """

    costs: Array
    dice: Array
    on_front: NDArray[np.bool_]
    shown: Array
    cases: Array


def truth(seed: int) -> Truth:
    """The race of a seed."""
    draw = np.random.default_rng(seed)

    def drawn(low: float, high: float) -> float:
        return float(np.exp(draw.uniform(math.log(low), math.log(high))))

    count = int(draw.integers(12, 37))
    costs = np.exp(draw.uniform(math.log(0.1), 0, count))
    dice = 0.8 - drawn(0.01, 0.08) * np.exp(-costs / drawn(0.1, 0.5)) + draw.normal(0, drawn(0.001, 0.012), count)
    of_fold = draw.normal(0, 0.05, (FOLDS, CASES))
    of_point = draw.normal(0, drawn(0.001, 0.005), (count, FOLDS))
    of_case = draw.normal(0, drawn(0.005, 0.025), (count, FOLDS, CASES))
    uneven = 1 + draw.integers(0, 2) * (1 - costs)
    luck = draw.normal(0, drawn(0.001, 0.008), (count, FOLDS)) * uneven[:, None]
    shown = dice[:, None, None] + of_fold + of_case + (of_point + luck)[:, :, None]
    beaten = (costs[None] <= costs[:, None]) & (dice[None] > dice[:, None])
    return Truth(
        costs=costs, dice=dice, on_front=np.asarray(~beaten.any(axis=1)), shown=shown.mean(axis=2), cases=shown[:, 0]
    )


@dataclass(frozen=True, kw_only=True)
class Played:
    """How a race ended.

    Attributes:
        probability: P(on front) of each point; on_front: the truth.
        verdict: 1 on the front, 0 not, -1 undecided; rivals: whether any point costs as little.
        share: hours spent, of those of all points on all folds; trainings: how many.
    """

    probability: Array
    on_front: NDArray[np.bool_]
    verdict: NDArray[np.int64]
    rivals: NDArray[np.bool_]
    share: float
    trainings: int


def play(seed: int) -> Played:
    """Confirm the race of a seed until nothing is left to decide or to train."""
    known, judged = truth(seed), dict[Training, float]()
    points = range(len(known.costs))
    searched = {Training(point=point, fold=0, seed=0): float(known.shown[point, 0]) for point in points}
    deviation = case_deviation(known.cases, known.shown[:, 0])
    left = [Training(point=point, fold=fold, seed=0) for fold in range(1, FOLDS) for point in points]
    while True:
        race = Race(costs=known.costs[:, None], searched=searched, judged=dict(judged), case_deviation=deviation)
        belief = race.belief()
        found = next_training(belief, left, known.costs.tolist())
        if found is None:
            return _played(known, belief, judged)
        judged[found[1]] = float(known.shown[found[1].point, found[1].fold])
        left.remove(found[1])


def _played(known: Truth, belief: Belief, judged: dict[Training, float]) -> Played:
    settled = np.array([belief.is_settled(point) for point in range(len(known.costs))])
    return Played(
        probability=belief.probability,
        on_front=known.on_front,
        verdict=np.where(settled, (belief.probability >= LIKELY).astype(int), -1),
        rivals=np.asarray(belief.race.affordable.any(axis=1)),
        share=sum(known.costs[each.point] for each in judged) / (known.costs.sum() * (FOLDS - 1)),
        trainings=len(judged),
    )


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Points of which P(on front) is between two numbers: how many, and how many of them are on it."""

    low: float
    high: float
    points: int
    on_front: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Figures over some races.

    Attributes:
        races: how many; held_out: whether those that nothing was chosen on.
        bins: of points that others can beat, by P.
        said_on, of_them_on: how many were called on the front, and were; said_off, of_them_off: likewise not.
        undecided: points; missed: of the true front, how many were called not on it, of how many.
        median, p90: share of the hours of all points on all folds.
        trainings: mean of a race.
    """

    races: int
    held_out: bool
    bins: tuple[Bin, ...]
    said_on: int
    of_them_on: int
    said_off: int
    of_them_off: int
    undecided: int
    missed: tuple[int, int]
    median: float
    p90: float
    trainings: float

    def as_text(self) -> str:
        """Some lines."""
        name = "held-out races" if self.held_out else "races"
        lines = [f"{self.races} {name}, points that something as cheap can beat:"]
        lines += [
            f"  P {each.low:.1f} to {each.high:.1f}: {each.on_front} of {each.points} on the front"
            f"{f' ({each.on_front / each.points:.1%})' if each.points else ''}"
            for each in self.bins
        ]
        return "\n".join(
            [
                *lines,
                f"  called on the front: {self.said_on}, {self.of_them_on} of them are; called not: {self.said_off}, "
                f"{self.of_them_off} of them are not; undecided: {self.undecided}; of the {self.missed[1]} on the "
                f"front {self.missed[0]} were called not",
                f"  GPU-hours against all points on all folds: median {self.median:.1%}, p90 {self.p90:.1%}; "
                f"{self.trainings:.0f} trainings a race",
            ]
        )


@dataclass(frozen=True, kw_only=True)
class ConfirmBench:
    """Figures of all races, and of those held out."""

    calibrations: tuple[Calibration, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON."""
        return asdict(self)

    def as_text(self) -> str:
        """Some lines for each."""
        return "\n".join(each.as_text() for each in self.calibrations)


def measure(*, races: int, jobs: int) -> ConfirmBench:
    """Play the races of seeds from 0.

    Args:
        races: how many, at least 3.
        jobs: processes side by side.
    """
    played = joblib.Parallel(n_jobs=jobs)(joblib.delayed(play)(seed) for seed in range(races))
    return ConfirmBench(
        calibrations=(calibrated(played, held_out=False), calibrated(played[::HELD_OUT], held_out=True))
    )


def calibrated(played: Sequence[Played], *, held_out: bool) -> Calibration:
    """The figures of some races."""
    rivals = np.concatenate([each.rivals for each in played])
    share = np.concatenate([each.probability for each in played])[rivals]
    truly = np.concatenate([each.on_front for each in played])[rivals]
    verdict = np.concatenate([each.verdict for each in played])[rivals]
    places = np.digitize(share, EDGES[1:-1])
    spent = np.array([each.share for each in played])
    return Calibration(
        races=len(played),
        held_out=held_out,
        bins=tuple(
            Bin(low=low, high=high, points=int((places == k).sum()), on_front=int(truly[places == k].sum()))
            for k, (low, high) in enumerate(itertools.pairwise(EDGES))
        ),
        said_on=int((verdict == 1).sum()),
        of_them_on=int(truly[verdict == 1].sum()),
        said_off=int((verdict == 0).sum()),
        of_them_off=int((~truly[verdict == 0]).sum()),
        undecided=int((verdict == -1).sum()),
        missed=(int(truly[verdict == 0].sum()), int(truly.sum())),
        median=float(np.median(spent)),
        p90=float(np.quantile(spent, 0.9, method="higher")),
        trainings=float(np.mean([each.trainings for each in played])),
    )
