"""When a training reached a Dice: the crossing of a threshold on its own learning curve.

The curve is the smoothed validation Dice, the very one that `--stop-at-dice` watches: pseudo Dice of the fixed
validation batches, mean of the last three evaluations. Between two evaluations it is taken as linear, and so is what
was spent between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.frame import KEY
from study.stopping import SMOOTHED_EVALUATIONS, smoothed_dice

SPENT = ("training_seconds", "co2_kg", "voxels", "iteration")
"""Columns of the epochs that a crossing is told in."""


def smoothed_curves(epochs: pd.DataFrame) -> pd.DataFrame:
    """Evaluated epochs with the column `smoothed`; those before the third evaluation of a trial are left out.

    Args:
        epochs: as in `frame.Tables`.

    Returns:
        Columns study, trial_id, smoothed and those of SPENT, in order.
    """
    evaluated = epochs[epochs["pseudo_dice"].notna()].sort_values([*KEY, "epoch"], kind="stable")
    parts = [_smoothed(part) for _, part in evaluated.groupby(KEY, sort=False)]
    names = [*KEY, "smoothed", *SPENT]
    return pd.concat(parts)[names] if parts else pd.DataFrame(columns=names)


def crossings(curves: pd.DataFrame, thresholds: Sequence[float]) -> pd.DataFrame:
    """Where each trial first reaches each threshold.

    Args:
        curves: as `smoothed_curves` gives them.
        thresholds: of Dice.

    Returns:
        One row per trial and threshold: study, trial_id, threshold, `reached`, `best` (highest smoothed Dice), `dice`
        at the evaluation that reached it, `interval_iterations` between that evaluation and the one before, the columns
        of SPENT at the crossing, and with `end_` before them at the last evaluation. What is not known is missing; a
        first evaluation at or above the threshold counts where it stands.
    """
    rows = [
        {**dict(zip(KEY, key, strict=True)), "threshold": threshold, **_crossing(part, threshold)}
        for key, part in curves.groupby(KEY, sort=False)
        for threshold in thresholds
    ]
    ends = [f"end_{name}" for name in SPENT]
    names = [*KEY, "threshold", "reached", "best", "dice", "interval_iterations", *SPENT, *ends]
    return pd.DataFrame(rows, columns=names)


def _smoothed(part: pd.DataFrame) -> pd.DataFrame:
    values = part["pseudo_dice"].tolist()
    smoothed = [smoothed_dice(values[: end + 1]) for end in range(len(values))]
    return part.assign(smoothed=pd.Series(smoothed, index=part.index, dtype=float)).iloc[SMOOTHED_EVALUATIONS - 1 :]


def _crossing(part: pd.DataFrame, threshold: float) -> dict[str, object]:
    dice = part["smoothed"].to_numpy(dtype=float)
    spent = part[list(SPENT)].to_numpy(dtype=float)
    above = np.flatnonzero(dice >= threshold)
    best: dict[str, object] = {"reached": bool(len(above)), "best": float(dice.max())}
    best |= {f"end_{name}": value for name, value in zip(SPENT, spent[-1].tolist(), strict=True)}
    if not len(above):
        return best
    end = int(above[0])
    at, interval = spent[end], np.nan
    if end > 0:
        share = (threshold - dice[end - 1]) / (dice[end] - dice[end - 1])
        at = spent[end - 1] + share * (spent[end] - spent[end - 1])
        interval = spent[end][SPENT.index("iteration")] - spent[end - 1][SPENT.index("iteration")]
    return {
        **best,
        "dice": float(dice[end]),
        "interval_iterations": interval,
        **dict(zip(SPENT, at.tolist(), strict=True)),
    }
