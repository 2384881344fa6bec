"""The columns of a comparison: one row per dataset, budget and method (`ROW_COLUMNS`), and their means over tasks.

Ratios are method / baseline: 0.46 is 46 % of the baseline's cost. A ratio is missing where one side has no such value
or where the two cannot be compared; `remarks` says why.

Numbers of a comparison for people: ratios in per cent, differences with their sign, p values.
"""

from __future__ import annotations

import pandas as pd

from analysis.tables.columns import Column
from analysis.tables.format import MISSING
from study.common.setting import Dtype

# Below this, p values and probabilities are printed as a bound.
_SMALLEST_SHOWN = 0.001
# Differences of Dice below this are 0.0000 and have no sign.
_SMALLEST_DIFFERENCE = 5e-5


def percent(value: float, decimals: int = 1) -> str:
    """A ratio as `46.1 %`, a dash where it is missing."""
    return MISSING if pd.isna(value) else f"{100 * value:.{decimals}f} %"


def budget_words(value: float) -> str:
    """A budget as `25 %`."""
    return percent(value, 0)


def dice(value: float) -> str:
    """A Dice to four decimals."""
    return MISSING if pd.isna(value) else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference of Dice with its sign, four decimals; zero has none."""
    if pd.isna(value):
        return MISSING
    return f"{value:+.4f}" if abs(value) >= _SMALLEST_DIFFERENCE else "0.0000"


def probability(value: float) -> str:
    """A p value or probability: three decimals, or a bound."""
    if pd.isna(value):
        return MISSING
    return f"< {_SMALLEST_SHOWN:g}" if value < _SMALLEST_SHOWN else f"{value:.3f}"


def several_of(rows: pd.DataFrame, *names: str) -> list[str]:
    """Those of `dataset` and `plans` that rows must be told apart by: more than one dataset, or plans of one."""
    varies = {
        "dataset": rows["dataset"].nunique() > 1,
        "plans": bool(rows.groupby("dataset")["plans"].nunique().gt(1).any()),
    }
    return [name for name in names if varies[name]]


RATIOS = {"runtime_ratio": "runtime", "voxel_ratio": "voxels", "energy_ratio": "energy", "co2_ratio": "CO₂"}
"""Column of each ratio, and its name in sentences."""


def _column(name: str, label: str, dtype: Dtype, meaning: str, *, unit: str = "") -> Column:
    return Column(name=name, label=label, unit=unit, dtype=dtype, meaning=meaning)


ROW_COLUMNS: tuple[Column, ...] = (
    _column("source", "Source", "str", "`trials`, or the publication that printed the numbers"),
    _column("dataset", "Dataset", "str", "nnU-Net's name"),
    _column("plans", "Plans", "str", "name of the nnU-Net plans"),
    _column("configuration", "Configuration", "str", "of those plans"),
    _column("budget", "Budget", "float64", "share of the iterations per epoch that the baseline trained"),
    _column("baseline", "Baseline", "str", "what is compared with"),
    _column("against", "Method", "str", "what is compared"),
    _column("baseline_method", "Baseline scheme", "str", "published scheme of the baseline, or `other`"),
    _column("against_method", "Scheme", "str", "published scheme of the method, or `other`"),
    _column("baseline_id", "Baseline id", "str", "its configuration id"),
    _column("against_id", "Method id", "str", "its configuration id"),
    _column("folds", "Folds", "str", "that both have; all numbers of the row rest on these"),
    _column("n_folds", "Folds", "Int64", "number of these"),
    _column("folds_left_out", "Folds left out", "str", "that only one of the two has"),
    _column("baseline_dice", "Baseline Dice", "float64", "mean over the shared folds, in a fold over seeds"),
    _column("against_dice", "Dice", "float64", "likewise, on the same cases"),
    _column("dice_difference", "ΔDice", "float64", "of these two, method minus baseline"),
    _column("n_cases", "Cases", "Int64", "validation cases with a Dice of both, seeds averaged"),
    _column("n_zero", "Ties", "Int64", "cases whose two Dice are equal to 1e-12; the test leaves them out"),
    _column("dropped_cases", "Dropped", "str", "cases without a Dice on one side or both, separated by spaces"),
    _column("n_dropped", "Dropped", "Int64", "number of these"),
    _column("n_unpaired", "Unpaired", "Int64", "cases of the shared folds that only one of the two was validated on"),
    _column("baseline_trainings", "Baseline trainings", "Int64", "on the shared folds: folds × seeds"),
    _column("against_trainings", "Trainings", "Int64", "the same"),
    _column("standard_error", "SE", "float64", "of ΔDice: over cases, and over trainings if `covers` says so"),
    _column("difference_low", "ΔDice, from", "float64", "lower end of its 95 % interval"),
    _column("difference_high", "ΔDice, to", "float64", "upper end of the same"),
    _column(
        "covers", "Covers", "str", "`cases and trainings` where both sides have two trainings in a fold, else `cases`"
    ),
    _column("case_sd", "SD of cases", "float64", "SD over cases of their part in ΔDice"),
    _column("fold_sd", "SD of folds", "float64", "SD over folds of ΔDice; missing for one"),
    _column("baseline_training_sd", "SD of seeds, baseline", "float64", "of the Dice of a fold; missing for one seed"),
    _column("against_training_sd", "SD of seeds", "float64", "the same"),
    _column(
        "detectable", "Detectable", "float64", "smallest ΔDice found with 80 % power, one-sided at 5 %, as `covers`"
    ),
    _column("median_difference", "Median ΔDice", "float64", "per case"),
    _column("effect_size", "Effect size", "float64", "matched-pairs rank-biserial correlation, -1 to 1"),
    _column("p", "p, cases", "float64", "one-sided Wilcoxon signed-rank test over cases, of these trainings alone"),
    _column("p_trainings", "p", "float64", "one-sided t test of ΔDice over cases and trainings; missing for one seed"),
    _column("p_holm", "Holm p", "float64", "of the latter, else the former, over all rows; missing if there is one"),
    _column("false_outperformance", "False claim", "float64", "probability that ΔDice is truly not so, as `covers`"),
    _column("baseline_runtime_seconds", "Baseline time", "float64", "training, mean over the shared folds", unit="s"),
    _column("against_runtime_seconds", "Training time", "float64", "the same", unit="s"),
    _column("baseline_co2_kg", "Baseline CO₂", "float64", "training, mean over the shared folds", unit="kg"),
    _column("against_co2_kg", "Training CO₂", "float64", "the same", unit="kg"),
    _column("runtime_ratio", "Runtime ratio", "float64", "training time, method / baseline"),
    _column("voxel_ratio", "Voxel ratio", "float64", "voxels trained on, method / baseline"),
    _column("energy_ratio", "Energy ratio", "float64", "training energy, method / baseline"),
    _column("co2_ratio", "CO₂ ratio", "float64", "training CO₂, method / baseline"),
    _column(
        "break_even", "Trainings to break even", "float64", "CO₂ of all trials of the dataset / saved per training"
    ),
    _column("remarks", "Remarks", "str", "what was left out, and why"),
)

SUMMARY_COLUMNS: tuple[Column, ...] = (
    _column("source", "Source", "str", "as in the rows"),
    _column("budget", "Budget", "float64", "as in the rows"),
    _column("baseline", "Baseline", "str", "as in the rows"),
    _column("against", "Method", "str", "as in the rows"),
    _column("n_tasks", "Tasks", "Int64", "rows that the means are over"),
    _column("tasks_higher", "Higher", "Int64", "tasks whose mean Dice over folds is above the baseline's"),
    _column("tasks_equal", "Equal", "Int64", "tasks with equal ones"),
    _column("tasks_lower", "Lower", "Int64", "tasks with a lower one"),
    _column("tasks_significant", "Significant", "Int64", "tasks with p below 0.05 over cases and trainings (Holm's)"),
    _column("dice_gain_where_higher_mean", "Gain", "float64", "relative difference of Dice where it is higher, mean"),
    _column("dice_gain_where_higher_sd", "Gain, SD", "float64", "SD of the same"),
    _column("dice_loss_where_lower_mean", "Loss", "float64", "relative difference of Dice where it is lower, mean"),
    _column("dice_loss_where_lower_sd", "Loss, SD", "float64", "SD of the same"),
    *(
        column
        for name, words in RATIOS.items()
        for column in (
            _column(f"{name}_mean", f"{words} ratio", "float64", "mean over tasks"),
            _column(f"{name}_sd", f"{words} ratio, SD", "float64", "over tasks, of the population; missing for one"),
            _column(f"{name}_tasks", f"{words} ratio, tasks", "Int64", "with this ratio"),
        )
    ),
)
