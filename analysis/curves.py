"""Learning curves for cards: pseudo Dice over iterations and seconds, thinned to at most a hundred points a trial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

MOST_POINTS, FEWEST_POINTS, MOST_OF_ALL = 100, 20, 40_000


def thinned_curves(epochs: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """The curves of all trials that have any.

    Args:
        epochs: in the columns of `columns.EPOCH_COLUMNS`.

    Returns:
        (study, trial_id) -> `iterations`, `seconds` and `dice` of at most MOST_POINTS epochs, the first and the last
        among them, and `stages`: indices into these lists where a new stage begins. Trials whose curves would together
        exceed MOST_OF_ALL points have fewer each, but FEWEST_POINTS at least.
    """
    evaluated = epochs[epochs["pseudo_dice"].notna()]
    groups = evaluated.groupby(["study", "trial_id"], sort=False)
    most = max(FEWEST_POINTS, min(MOST_POINTS, MOST_OF_ALL // max(1, groups.ngroups)))
    return {(str(study), str(trial)): _curve(part, most) for (study, trial), part in groups}


def _curve(epochs: pd.DataFrame, most: int) -> dict[str, Any]:
    kept = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), most)).round().astype(int))
    part = epochs.iloc[kept]
    stages = part["stage"].to_numpy(dtype=float)
    return {
        "iterations": part["iteration"].tolist(),
        "seconds": [round(value, 1) for value in part["training_seconds"].tolist()],
        "dice": [round(value, 4) for value in part["pseudo_dice"].tolist()],
        "stages": (np.flatnonzero(np.diff(stages) != 0) + 1).tolist(),
    }
