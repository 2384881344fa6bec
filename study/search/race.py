"""How likely each point is on the front, and which training would tell most: a posterior of Dice over known costs.

The Dice of a training of point i on fold f is θ_i + φ_f + e: what the point is worth, how hard the fold is for all of
them, and an error that has to do with cases, fold and seed. Costs are known, so i is on the front where no point that
costs no more has a higher θ.

Judged are trainings on folds that the search did not see, those alone: θ_i lies around a curve over the cost, as far as
the search's points do for what is not noise; φ_f is normal. A point that has none yet is placed by its mean in the
search, shrunken to that curve, and moved by what that was off for the judged ones. So of the luck by which a search
finds its best points, what enters for a point that has been judged is what it did to the curve.

The variance of e is pooled over trainings and shrunken twice: the pool to what the validation cases of the search say,
so that there is one before any fold is repeated, and that of each point to the pool. Draws are therefore of a
multivariate t. P(on front) is the share of the draws, of a fixed seed, in which a point is on the front.

What another training would tell is read off the same draws: they are sorted by what it would show, and the expected
variance of "on the front" within what is shown is what remains of Σ P(1-P).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

DRAWS, BINS = 2000, 10
# P(on front) beyond which a point is settled, and from which on it may be one of the front.
UNLIKELY, LIKELY, CONTENDS = 0.1, 0.9, 0.05
# SD of φ: wide, so that points are compared by the folds that they share.
FOLD_DEVIATION = 0.05
# Folds that a point must have been judged on to be called one of the front, unless nothing costs as little.
LEAST_FOLDS = 2
# Degrees of freedom that the cases' say on the variance counts for, and the pool's on that of a point.
CASE_FREEDOM, POOL_FREEDOM = 2.0, 6.0
# Variance of a training's Dice over that of the mean of its cases: another training scatters about as much again.
TRAINING_FACTOR = 4.0
# The part of an error's variance that more seeds of the same fold do not take away.
FOLD_SHARE = 0.5
# Points, by their costs, from which on the search's Dice is shrunken to a curve.
LEAST_SHRUNKEN = 8
# Variance of points around the curve, over that of a training's noise, at least: the curve is not known exactly.
LEAST_AROUND = 0.1
_LEAST_DEVIATION, _CLEAR = 1e-5, 0.005


@dataclass(frozen=True, kw_only=True, order=True)
class Training:
    """A point (its place) trained on a fold with a seed."""

    point: int
    fold: int
    seed: int


Results = Mapping[Training, float]
"""Dice of trainings."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """What is known of the points of one dataset.

    Attributes:
        costs: (points, costs), each at least 0.
        searched: trainings that the search saw; each point has the same folds and seeds.
        judged: trainings on folds, or with seeds, that it did not see.
        case_deviation: SD of the mean over a fold's validation cases, of one point against another.
    """

    costs: Array
    searched: Results
    judged: Results
    case_deviation: float

    @cached_property
    def affordable(self) -> Flags:
        """(points, points): whether the second costs no more than the first; none is its own rival."""
        found = (self.costs[None] <= self.costs[:, None]).all(axis=2)
        return np.asarray(found & ~np.eye(len(self.costs), dtype=bool))

    @cached_property
    def start(self) -> Array:
        """Mean Dice of each point in the search, (points,)."""
        return _means(self.searched, len(self.costs))

    @cached_property
    def prior(self) -> tuple[Array, Array]:
        """Mean and SD of θ by the search alone: its Dice, shrunken to the curve by what of it is noise."""
        if self.curve is None:
            return self.start, np.sqrt(self._noise)
        curve, around = self.curve
        weight = around / (around + self._noise)
        return curve + weight * (self.start - curve), np.sqrt(weight * self._noise)

    @cached_property
    def curve(self) -> tuple[Array, Array] | None:
        """What points of its cost are worth and the variance of θ around it, (points,); None with few points."""
        if len(set(self.costs[:, 0].tolist())) < LEAST_SHRUNKEN:
            return None
        curve, spread = _trend(np.log(np.maximum(self.costs[:, 0], 1e-12)), self.start)
        return curve, np.maximum(LEAST_AROUND * self._noise, spread**2 - self._noise)

    @cached_property
    def _noise(self) -> Array:
        """Variance of each point's mean in the search, (points,)."""
        return np.asarray(self.variances[0] / _counts(self.searched, len(self.costs)))

    @cached_property
    def variances(self) -> tuple[Array, float]:
        """Of the error of a training of each point, and the degrees of freedom behind them."""
        rows = {**self.searched, **self.judged}
        good = self.start >= np.median(self.start)
        good[[each.point for each in self.judged]] = True
        squares, counts, freedom = _residuals(
            {each: dice for each, dice in rows.items() if good[each.point]}, len(good)
        )
        prior = TRAINING_FACTOR * max(self.case_deviation, _LEAST_DEVIATION) ** 2
        pool = (CASE_FREEDOM * prior + squares.sum()) / (CASE_FREEDOM + freedom)
        own = counts * freedom / max(1.0, counts.sum())
        return (POOL_FREEDOM * pool + squares) / (POOL_FREEDOM + own), CASE_FREEDOM + freedom

    def belief(self, pending: Sequence[Training] = ()) -> Belief:
        """What is believed of the points.

        Args:
            pending: trainings under way; they count as if they came to what is expected of them.
        """
        found = Belief(race=self, judged=self.judged)
        if not pending:
            return found
        expected = {each: float((found.dice[:, each.point] + found.shift(each.fold)).mean()) for each in pending}
        return Belief(race=self, judged={**self.judged, **expected})


@dataclass(frozen=True, kw_only=True)
class Belief:
    """Draws of the posterior; see the module.

    Attributes:
        race: of whose points.
        judged: what it rests on besides the search.
    """

    race: Race
    judged: Results

    @cached_property
    def _draws(self) -> tuple[Array, dict[int, Array], Array]:
        """θ of points, φ of folds and the common scale, in each draw."""
        race, generator = self.race, np.random.default_rng(0)
        variances, freedom = race.variances
        scale = np.sqrt(freedom / generator.chisquare(freedom, DRAWS))
        cells = list(_cells(self.judged))
        points = sorted({point for point, *_ in cells})
        folds = sorted({fold for _, fold, *_ in cells})
        names: list[tuple[str, int]] = [*(("point", p) for p in points), *(("fold", f) for f in folds)]
        place = {name: k for k, name in enumerate(names)}
        curve, around = race.curve or (race.start, np.full(len(race.start), np.inf))
        precision = np.diag([*(1 / around[points]), *([FOLD_DEVIATION**-2] * len(folds))])
        right = np.array([*(curve[points] / around[points]), *([0.0] * len(folds))])
        for point, fold, dice, seeds in cells:
            weight = 1 / (variances[point] * _cell_variance(seeds))
            row = [place["point", point], place["fold", fold]]
            precision[np.ix_(row, row)] += weight
            right[row] += weight * dice
        drawn = np.zeros((DRAWS, len(names)))
        if names:
            factor = np.linalg.cholesky(precision)
            normal = generator.standard_normal((DRAWS, len(names)))
            drawn = np.linalg.solve(precision, right) + scale[:, None] * np.linalg.solve(factor.T, normal.T).T
        theta = self._of_search(drawn[:, : len(points)], points, scale, generator)
        return theta, {fold: drawn[:, place["fold", fold]] for fold in folds}, scale

    def _of_search(self, drawn: Array, judged: Sequence[int], scale: Array, generator: np.random.Generator) -> Array:
        """θ of all points: the judged ones as drawn, the others by the search."""
        race = self.race
        mean, deviation = race.prior
        dice = np.asarray(mean + scale[:, None] * deviation * generator.standard_normal((DRAWS, len(mean))))
        if len(judged):
            dice -= (dice[:, judged] - drawn).mean(axis=1)[:, None]
            dice[:, judged] = drawn
        return dice

    @property
    def dice(self) -> Array:
        """(draws, points)."""
        return self._draws[0]

    def shift(self, fold: int) -> Array:
        """φ of a fold, (draws,); one that nothing was trained on is drawn from its prior."""
        known, scale = self._draws[1:]
        if fold in known:
            return known[fold]
        return FOLD_DEVIATION * scale * np.random.default_rng(2 + fold).standard_normal(DRAWS)

    @cached_property
    def on_front(self) -> Flags:
        """(draws, points)."""
        flags = np.zeros(self.dice.shape, dtype=bool)
        affordable = self.race.affordable
        # Whoever a point that costs no more beats in every draw is on no front, and keeps nobody else off it.
        lowest = np.where(affordable, self.dice.min(axis=0), -np.inf).max(axis=1, initial=-np.inf)
        alive = np.flatnonzero(self.dice.max(axis=0) >= lowest)
        for point in alive:
            rivals = alive[affordable[point, alive]]
            best = self.dice[:, rivals].max(axis=1, initial=-np.inf)
            flags[:, point] = self.dice[:, point] >= best
        return flags

    @cached_property
    def probability(self) -> Array:
        """P(on front), (points,)."""
        return np.asarray(self.on_front.mean(axis=0))

    @cached_property
    def _uncertain(self) -> Array:
        """Whether points are on the front, (draws, points), of those of whom it is not clear."""
        share = self.probability
        return self.on_front[:, (share > _CLEAR) & (share < 1 - _CLEAR)].astype(np.float32)

    @cached_property
    def folds(self) -> Counter[int]:
        """How many folds each point has been judged on."""
        return Counter(point for point, *_ in _cells(self.judged))

    def is_settled(self, point: int) -> bool:
        """Whether no more needs to be known of a point."""
        probability = self.probability[point]
        if probability <= UNLIKELY or not self.race.affordable[point].any():
            return True
        return bool(probability >= LIKELY and self.folds[point] >= LEAST_FOLDS)

    def challenger(self, point: int) -> int | None:
        """The point that is most often the best of those that cost no more; None if none does."""
        rivals = np.flatnonzero(self.race.affordable[point])
        if not len(rivals):
            return None
        return int(rivals[np.bincount(self.dice[:, rivals].argmax(axis=1), minlength=len(rivals)).argmax()])

    def drop(self, trainings: Sequence[Training]) -> float:
        """Expected drop of Σ P(1-P) by one training, or by the difference of two on the same fold."""
        shown = self._shown(trainings[0], 0)
        shown = shown - self._shown(trainings[1], 1) if trainings[1:] else shown + self.shift(trainings[0].fold)
        shares = self._uncertain[np.argsort(shown)].reshape(BINS, DRAWS // BINS, -1).mean(axis=1)
        return float(shares.var(axis=0).sum())

    def _shown(self, training: Training, place: int) -> Array:
        """What a training would show but for its fold: θ and an error, one of two."""
        point, fold = training.point, training.fold
        seeds = sum(each.point == point and each.fold == fold for each in self.judged)
        news = 1 / (1 / _cell_variance(seeds + 1) - (1 / _cell_variance(seeds) if seeds else 0.0))
        deviation = math.sqrt(news * self.race.variances[0][point])
        return np.asarray(self.dice[:, point] + deviation * self._errors[place])

    @cached_property
    def _errors(self) -> Array:
        return self._draws[2] * np.random.default_rng(1).standard_normal((2, DRAWS))


def next_training(
    belief: Belief, left: Sequence[Training], hours: Sequence[float], *, most_hours: float = math.inf
) -> tuple[float, Training] | None:
    """The training with the largest expected drop of Σ P(1-P) per hour, with that drop; None where none is needed.

    A contender and its nearest challenger on a fold that neither was judged on are two trainings that tell something
    together: their difference. The contender's is the one to begin with.

    Args:
        belief: of a race, trainings under way included.
        left: trainings that may be begun, the first ones first where equals are.
        hours: of a training of each point.
        most_hours: that may be spent.
    """
    best: tuple[float, Training] | None = None
    for trainings in _choices(belief, left):
        price = sum(hours[each.point] for each in trainings)
        if price <= most_hours:
            gain = belief.drop(trainings) / price
            if best is None or gain > best[0]:
                best = gain, trainings[0]
    return best


def _choices(belief: Belief, left: Sequence[Training]) -> Iterator[tuple[Training, ...]]:
    """Trainings of a contender, of its nearest challenger, or of both on one fold; of folds still unused the first."""
    first: dict[tuple[int, int], Training] = {}
    for each in left:
        first.setdefault((each.point, each.fold), each)
    used = {each.fold for each in belief.judged}
    folds = sorted(dict.fromkeys(each.fold for each in left), key=lambda fold: fold not in used)
    found: dict[tuple[Training, ...], None] = {}
    for point in range(len(belief.race.costs)):
        rival = None if belief.is_settled(point) else belief.challenger(point)
        if rival is None:
            continue
        for fold in folds:
            mine, theirs = first.get((point, fold)), first.get((rival, fold))
            if theirs and belief.probability[rival] <= CONTENDS:
                theirs = None
            if not mine and not theirs:
                continue
            if mine and theirs:
                found[mine, theirs] = None
            if one := mine or theirs:
                found[(one,)] = None
            if fold not in used:
                break
    yield from found


def case_deviation(cases: Array, dice: Array) -> float:
    """What the validation cases of one fold say of how far a mean over them is off against another point's.

    Args:
        cases: Dice of each case, (points, cases), NaN where there is none.
        dice: of each point, (points,).

    Returns:
        SD of a point's mean: the median over neighbours by Dice, each with half of the variance of their difference.
    """
    apart = np.diff(cases[np.argsort(dice, kind="stable")], axis=0)
    rows = [row[np.isfinite(row)] for row in apart]
    squares = [float(np.var(row, ddof=1)) / 2 / len(row) for row in rows if len(row) > 1]
    return math.sqrt(float(np.median(squares))) if squares else 0.0


def _cells(judged: Results) -> Iterator[tuple[int, int, float, int]]:
    """Point, fold, mean Dice over seeds, number of seeds."""
    for (point, fold), rows in groupby(sorted(judged.items()), key=lambda item: (item[0].point, item[0].fold)):
        values = [dice for _, dice in rows]
        yield point, fold, sum(values) / len(values), len(values)


def _cell_variance(seeds: int) -> float:
    """Variance of the mean of so many seeds on one fold, over that of one."""
    return FOLD_SHARE + (1 - FOLD_SHARE) / seeds


def _residuals(rows: Results, points: int) -> tuple[Array, Array, float]:
    """Squares of what points and folds (with seeds) leave open, by point; trainings by point; degrees of freedom."""
    places = {cell: k for k, cell in enumerate(sorted({(each.fold, each.seed) for each in rows}))}
    matrix = np.zeros((len(rows), points + len(places)))
    for k, each in enumerate(rows):
        matrix[k, [each.point, points + places[each.fold, each.seed]]] = 1
    dice = np.array(list(rows.values()))
    found, _, rank, _ = np.linalg.lstsq(matrix, dice, rcond=None)
    owners = [each.point for each in rows]
    squares = np.bincount(owners, weights=(dice - matrix @ found) ** 2, minlength=points)
    return np.asarray(squares, dtype=float), _counts(rows, points), float(len(rows) - rank)


def _trend(places: Array, dice: Array) -> tuple[Array, float]:
    """A parabola through points, and the SD around it; those far off, such as collapsed trainings, do not count."""
    kept = np.ones(len(dice), dtype=bool)
    for _ in range(3):
        curve = np.polynomial.Polynomial.fit(places[kept], dice[kept], 2)(places)
        apart = dice - curve
        spread = 1.5 * float(np.median(np.abs(apart[kept])))
        kept = np.abs(apart) <= max(4 * spread, _LEAST_DEVIATION)
    return curve, math.sqrt(float((apart[kept] ** 2).sum()) / max(1, kept.sum() - 3))


def _means(rows: Results, points: int) -> Array:
    owners = [each.point for each in rows]
    return np.asarray(np.bincount(owners, weights=list(rows.values()), minlength=points) / _counts(rows, points))


def _counts(rows: Results, points: int) -> Array:
    return np.asarray(np.bincount([each.point for each in rows], minlength=points), dtype=float)
