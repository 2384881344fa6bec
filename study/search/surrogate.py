"""What a study's points say of points that have not been trained: their costs nearly exactly, their Dice as a guess.

Costs follow from the stage table: a trial's time or energy is a constant (set-up, validation), so much an iteration and
so much a voxel, all at least 0. `predicted_costs` takes the three from what finished points cost.

Dice is a Gaussian process of the settings, with folds and seeds as noise: `DiceModel`. A cheap point informs dear ones,
for its budget is a setting like the others, and its predicted cost one more.

`expected_improvement` is the closed form of the expected hypervolume improvement where Dice alone is uncertain. The
costs of a candidate fix the cells of the space of costs to which it adds; over a cell its gain is the part of its Dice
above the best that costs no more, and that part of a normal variable is known (Jones et al., J Global Optim 1998).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from study.search.domains import Domain, Interval, LogUniform, Scalar

Array = NDArray[np.float64]

# A numeric choice that spans this factor is read in the logarithm.
_DECADE = 8.0
# The kernel's parameters are fitted to so many points at most, evenly from first to last: a fit costs the cube.
MOST_FITTED = 100
# How much a cost's constant, iterations and voxels count before anything has finished: nearly voxels alone.
_BEFORE_RESULTS = (0.02, 0.05, 1.0)
_SHRINKAGE = 0.01
_SMALLEST_DEVIATION = 1e-6


class Encoding:
    """Points as rows of numbers from 0 to 1: numeric settings one column each, words one for each word.

    Args:
        axes: name -> domain of the searched settings.
    """

    def __init__(self, axes: Mapping[str, Domain]) -> None:
        self._columns = [column for name, domain in axes.items() for column in _columns(name, domain)]

    def rows(self, points: Sequence[Mapping[str, Scalar]]) -> Array:
        """One row per point."""
        made = [[column(point) for column in self._columns] for point in points]
        return np.array(made, dtype=float).reshape(len(points), len(self._columns))


def _columns(name: str, domain: Domain) -> list[_Scaled] | list[_Is]:
    if isinstance(domain, Interval):
        return [_Scaled(name, domain.low, domain.high, logarithmic=isinstance(domain, LogUniform))]
    values = domain.values() or ()
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return [_Is(name, value) for value in values]
    low, high = min(numbers), max(numbers)
    return [_Scaled(name, low, high, logarithmic=low > 0 and high / low >= _DECADE)]


class _Scaled:
    """A number, from its least to its greatest."""

    def __init__(self, name: str, low: float, high: float, *, logarithmic: bool) -> None:
        self._name, self._scale = name, math.log if logarithmic else float
        self._low, self._range = self._scale(low), self._scale(high) - self._scale(low)

    def __call__(self, point: Mapping[str, Scalar]) -> float:
        return (self._scale(point[self._name]) - self._low) / self._range  # type: ignore[arg-type]


class _Is:
    """Whether a setting has this value."""

    def __init__(self, name: str, value: Scalar) -> None:
        self._name, self._value = name, value

    def __call__(self, point: Mapping[str, Scalar]) -> float:
        return float(point[self._name] == self._value)


class DiceModel:
    """A Gaussian process (Matérn 5/2, a length scale per column, noise of its own).

    Args:
        rows: of the points whose Dice is known, (points, columns), in the order they were proposed.
        dice: theirs.
        believed: rows of points that are being trained: their Dice counts as what is expected of it, so that trials
            side by side differ.
    """

    def __init__(self, rows: Array, dice: Array, believed: Array) -> None:
        scales = np.ones(rows.shape[1])
        kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(scales, [(0.2, 10)] * len(scales), nu=2.5) + WhiteKernel(
            0.05, (1e-4, 1.0)
        )
        process = GaussianProcessRegressor(kernel, normalize_y=True)
        with warnings.catch_warnings():
            # Few points say little of a length scale: it then stays at an end of its range.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = np.unique(np.linspace(0, len(rows) - 1, MOST_FITTED).round().astype(int))
            process.fit(rows[fitted], dice[fitted])
        if len(believed) or len(rows) > MOST_FITTED:
            process = GaussianProcessRegressor(process.kernel_, optimizer=None, normalize_y=True).fit(rows, dice)
        self._deviation = float(np.std(dice)) or 1.0
        if len(believed):
            every = np.vstack([rows, believed]), np.append(dice, process.predict(believed))
            process = GaussianProcessRegressor(process.kernel_, optimizer=None, normalize_y=True).fit(*every)
        self._process = process

    def __call__(self, rows: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the true Dice, without the noise of a training, one of each per row."""
        mean, spread = self._process.predict(rows, return_std=True)
        noise = self._process.kernel_.k2.noise_level * self._deviation**2
        return mean, np.sqrt(np.maximum(spread**2 - noise, _SMALLEST_DEVIATION**2))


def predicted_costs(work: Array, known: Sequence[int], measured: Array) -> Array:
    """A cost of every point, from what some of them cost.

    Args:
        work: what a point does, (points, 3): 1, iterations, voxels; see `work_of`.
        known: the points whose cost is measured, as rows of `work`.
        measured: what theirs is, above 0.

    Returns:
        The cost of each; the measured ones are as measured. Without any, costs relative to each other.
    """
    scaled = work / work.max(axis=0)
    if not len(known):
        return np.asarray(scaled @ np.array(_BEFORE_RESULTS))
    rows = scaled[list(known)] / measured[:, None]
    # One finished point does not tell the three apart: what it leaves open goes to the voxels.
    weak = _SHRINKAGE * np.diag(np.median(rows, axis=0))
    wanted = np.append(np.ones(len(known)), [0.0, 0.0, _SHRINKAGE])
    rates, _ = nnls(np.vstack([rows, weak]), wanted)
    costs = np.asarray(scaled @ rates)
    costs[list(known)] = measured
    return np.asarray(np.maximum(costs, measured.min() * _SMALLEST_DEVIATION))


def scaled_costs(previewed: Array, known: Sequence[int], measured: Array) -> Array:
    """A cost of every point, from what all were said to cost before and what some of them did.

    Args:
        previewed: of each point, above 0.
        known: the points whose cost is measured.
        measured: what theirs is, above 0.

    Returns:
        The cost of each; the measured ones are as measured, the others off by the median factor of those.
    """
    factor = float(np.median(measured / previewed[list(known)])) if len(known) else 1.0
    costs = factor * previewed
    costs[list(known)] = measured
    return costs


def expected_improvement(
    mean: Array, deviation: Array, costs: Array, *, front_dice: Array, front_costs: Array, reference: Array
) -> Array:
    """Expected hypervolume improvement of candidates of known costs and normal Dice.

    Args:
        mean: of each candidate's Dice, (candidates,).
        deviation: its standard deviation, above 0.
        costs: theirs, (candidates, costs), one or two.
        front_dice: of the points so far, (points,); they may beat each other.
        front_costs: theirs, (points, costs).
        reference: the least Dice that counts, then the highest of each cost, (1 + costs,).

    Returns:
        In Dice times the costs' units, (candidates,).
    """
    floor, most = reference[0], reference[1:]
    edges = [np.unique(np.append(front_costs[:, k].clip(max=most[k]), most[k])) for k in range(costs.shape[1])]
    edges = [np.append(0.0, each) for each in edges]
    # Cells between neighbouring edges: the best Dice whose costs are no higher than a cell's lower corner.
    corners = np.stack([each.ravel() for each in np.meshgrid(*(e[:-1] for e in edges), indexing="ij")], axis=1)
    ends = np.stack([each.ravel() for each in np.meshgrid(*(e[1:] for e in edges), indexing="ij")], axis=1)
    affordable = (front_costs[None] <= corners[:, None]).all(axis=2)
    best = np.where(affordable, front_dice[None], floor).max(axis=1, initial=floor)
    gained = np.zeros(len(mean))
    for corner, end, threshold in zip(corners, ends, best, strict=True):
        size = np.clip(end - np.maximum(corner, costs), 0.0, None).prod(axis=1)
        z = (mean - threshold) / deviation
        gained += size * deviation * (z * norm.cdf(z) + norm.pdf(z))
    return gained
