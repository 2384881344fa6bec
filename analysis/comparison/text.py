"""A comparison in words: tables for people, the means over tasks as sentences, and what a reader must know.

The sign, the pairing and the dropped cases are always said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pandas as pd

from analysis.comparison.compare import Comparison
from analysis.comparison.measure import CASES, CASES_AND_TRAININGS
from analysis.comparison.pairs import RATIOS, budget_words, dice, percent, probability, several_of, signed
from analysis.statistics.tests import SIGNIFICANT
from analysis.tables.format import MISSING, Table, amount, counted

Cell: TypeAlias = "tuple[str, bool, Callable[[pd.Series[Any]], str]]"
"""Heading, whether it is a number, and how a row's cell is written."""


def dice_table(comparison: Comparison) -> Table:
    """Dice of both, the paired difference and its statistics."""
    return _table(comparison.rows, [*_identity(comparison), *_dice_cells(comparison), *_test_cells(comparison.rows)])


def cost_table(comparison: Comparison) -> Table:
    """Costs of the method relative to the baseline."""
    return _table(comparison.rows, [*_identity(comparison), *_ratio_cells(comparison.rows)])


def whole_table(comparison: Comparison) -> Table:
    """Both as one."""
    rows = comparison.rows
    return _table(rows, [*_identity(comparison), *_dice_cells(comparison), *_test_cells(rows), *_ratio_cells(rows)])


def summary_sentences(comparison: Comparison) -> list[str]:
    """Means ± SD over tasks, a sentence per method, budget and source; none for those of a single task."""
    means = comparison.summary[comparison.summary["n_tasks"] > 1]
    several = comparison.summary["source"].nunique() > 1
    return [(f"{row['source']}: " if several else "") + _summary_sentence(row) for _, row in means.iterrows()]


def notes(comparison: Comparison) -> list[str]:
    """Sentences on how to read the rows, what was dropped and what is not there."""
    if comparison.rows.empty:
        return [*comparison.missing, *comparison.ambiguous]
    rows = comparison.rows
    sentences = [
        *how_to_read(comparison),
        dropped(rows),
        *_remarks(rows),
        *_about_repeated_tasks(rows),
        *break_even(rows),
    ]
    return [s for s in (*sentences, comparison.foreground, *comparison.missing, *comparison.ambiguous) if s]


def how_to_read(comparison: Comparison) -> list[str]:
    """The sign, the pairing, what the intervals and p values are about, the correction, and the other statistics."""
    name, rows = comparison.baseline, comparison.rows
    sentences = [f"Positive ΔDice: above {name}. Dice are means over the folds that both have, in a fold over seeds."]
    if rows["p"].isna().all():
        return sentences
    claim = "above" if comparison.alternative == "greater" else "below"
    posterior = "False claim:" if rows["p_trainings"].isna().any() else "p is also the"
    return [
        *sentences,
        f"ΔDice pairs each validation case with itself over these folds. {about_trainings(rows)}",
        f"p, cases: one-sided Wilcoxon signed-rank test that the method is {claim} {name}, ties left out.",
        *_correction(rows),
        "Effect size: matched-pairs rank-biserial correlation.",
        f"{posterior} probability that the mean over all such cases is not {claim} {name} after all "
        "(Student's t posterior of the mean, non-informative prior, independent cases).",
        *smallest_seen(rows),
    ]


def about_trainings(rows: pd.DataFrame) -> str:
    """What intervals and tests know of other trainings, and so whether there are stars."""
    tested = rows[rows["p"].notna()]
    alone = int((tested["covers"] != CASES_AND_TRAININGS).sum())
    one = (
        "with one training per fold of a method, p, interval and SE are about the choice of cases alone: another "
        "seed may differ by more, so no star is given and none of them is called better"
    )
    both = (
        "with several seeds, p, interval and SE are of a hierarchical bootstrap, trainings within folds, then cases "
        f"(Student's t); *: below {SIGNIFICANT:g}"
    )
    if not alone:
        return f"{_capital(both)}."
    return f"{_capital(one)}." if alone == len(tested) else f"{_capital(both)}; {one} ({alone} of {len(tested)} rows)."


def smallest_seen(rows: pd.DataFrame) -> list[str]:
    """The smallest difference that the rows could have shown."""
    sentences = []
    for covers, part in rows[rows["detectable"].notna()].groupby("covers"):
        low, high = part["detectable"].min(), part["detectable"].max()
        span = f"{low:.4f}" if f"{low:.4f}" == f"{high:.4f}" else f"{low:.4f} to {high:.4f}, by row"
        alone = " alone, and more if trainings scatter (`analysis power`)" if covers == CASES else ""
        sentences.append(
            f"Detectable: a true ΔDice found by a one-sided test at 5 % in 80 % of such studies: "
            f"{span}, from {covers}{alone}."
        )
    return sentences


def break_even(rows: pd.DataFrame) -> list[str]:
    """What the whole search emitted beside what a later training saves, at the largest budget of each dataset."""
    known = rows[rows["break_even"].notna()]
    known = known[known["budget"] == known.groupby("dataset")["budget"].transform("max")]
    sentences = []
    for place, part in known.groupby(_places_of(known), sort=False):
        saved = part["baseline_co2_kg"] - part["against_co2_kg"]
        words = [
            f"{row['against']} {amount(kg, 'kg')} ({counted(math.ceil(row['break_even']), 'training')})"
            for kg, (_, row) in zip(saved, part.iterrows(), strict=True)
        ]
        sentences.append(
            f"{place}: all trials together emitted {amount(float((part['break_even'] * saved).iloc[0]), 'kg')} "
            f"of CO₂. A training at {budget_words(part['budget'].iloc[0])} on this hardware saves so much against "
            f"{part['baseline'].iloc[0]}, and the search is paid back after so many: {', '.join(words)}."
        )
    return sentences


def dropped(rows: pd.DataFrame) -> str:
    """How many cases had no Dice on one side and were left out."""
    if rows["p"].isna().all():
        return ""
    count = int(rows["n_dropped"].sum())
    return f"Dropped for want of a Dice: {counted(count, 'pair') if count else 'no pair'}."


def mean_and_sd(row: pd.Series[Any], name: str) -> str:
    """`46.09 % ± 6.82 %`, or the mean alone where there is no SD."""
    mean, sd = row[f"{name}_mean"], row[f"{name}_sd"]
    spread = "" if pd.isna(sd) else f" ± {percent(sd, 2)}"
    return f"{percent(mean, 2)}{spread}"


def _table(rows: pd.DataFrame, cells: Sequence[Cell]) -> Table:
    return Table(
        headings=tuple(heading for heading, _, _ in cells),
        numeric=tuple(numeric for _, numeric, _ in cells),
        rows=tuple(tuple(write(row) for _, _, write in cells) for _, row in rows.iterrows()),
    )


def _cell(name: str, write: Callable[[Any], str] = str) -> Callable[[pd.Series[Any]], str]:
    """Of a column, a dash where it is missing."""
    return lambda row: MISSING if pd.isna(row[name]) else write(row[name])


def _identity(comparison: Comparison) -> list[Cell]:
    source: list[Cell] = [("Source", False, _cell("source"))]
    return [
        *(source if comparison.rows["source"].nunique() > 1 else []),
        ("Dataset", False, _cell("dataset")),
        *(("Plans", False, _cell(name)) for name in several_of(comparison.rows, "plans")),
        ("Budget", True, _cell("budget", budget_words)),
        ("Method", False, _cell("against")),
        ("Folds", True, _cell("n_folds")),
    ]


def _dice_cells(comparison: Comparison) -> list[Cell]:
    return [
        (f"Dice {comparison.baseline}", True, _cell("baseline_dice", dice)),
        ("Dice", True, _cell("against_dice", dice)),
        ("ΔDice ± SE", True, _difference),
    ]


def _test_cells(rows: pd.DataFrame) -> list[Cell]:
    if rows["p"].isna().all():
        return []
    # Where p is Student's, the false claim is the same number.
    names = {
        "p_trainings": ("p", _p("p_trainings", star=bool(rows["p_holm"].isna().all()))),
        "p_holm": ("Holm p", _p("p_holm", star=True)),
    }
    false_claim: Cell = ("False claim", True, _cell("false_outperformance", probability))
    return [
        ("95 % interval", True, _interval),
        ("Cases", True, _cases),
        ("Trainings", True, _trainings),
        ("Detectable", True, _cell("detectable", "{:.4f}".format)),
        ("p, cases", True, _cell("p", probability)),
        *((heading, True, write) for name, (heading, write) in names.items() if rows[name].notna().any()),
        ("Effect size", True, _cell("effect_size", "{:+.2f}".format)),
        *([false_claim] if rows["p_trainings"].isna().any() else []),
    ]


def _p(name: str, *, star: bool) -> Callable[[pd.Series[Any]], str]:
    def write(row: pd.Series[Any]) -> str:
        starred = star and pd.notna(row["p_trainings"]) and row[name] < SIGNIFICANT
        return probability(row[name]) + ("*" if starred else "")

    return write


def _trainings(row: pd.Series[Any]) -> str:
    counts = (row["against_trainings"], row["baseline_trainings"])
    return MISSING if any(map(pd.isna, counts)) else " and ".join(map(str, dict.fromkeys(counts)))


def _ratio_cells(rows: pd.DataFrame) -> list[Cell]:
    cells = {name: (_capital(words), True, _cell(name, percent)) for name, words in RATIOS.items()}
    cells["break_even"] = ("Trainings to break even", True, _cell("break_even", lambda count: str(math.ceil(count))))
    return [cell for name, cell in cells.items() if rows[name].notna().any()]


def _cases(row: pd.Series[Any]) -> str:
    if pd.isna(row["n_cases"]):
        return MISSING
    return f"{row['n_cases']}" + (f" ({row['n_dropped']} dropped)" if row["n_dropped"] else "")


def _difference(row: pd.Series[Any]) -> str:
    error = row["standard_error"]
    return signed(row["dice_difference"]) + ("" if pd.isna(error) else f" ± {error:.4f}")


def _interval(row: pd.Series[Any]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    return MISSING if pd.isna(low) else f"{signed(low)} to {signed(high)}"


def _correction(rows: pd.DataFrame) -> list[str]:
    count = int(rows["p_holm"].notna().sum())
    of = "p, or p of cases where there is no other," if rows["p_trainings"].notna().any() else "p of cases"
    return [f"Holm p: {of} corrected over the {count} comparisons of this table."] if count else []


def _remarks(rows: pd.DataFrame) -> list[str]:
    """Each remark once per source, with the rows it is about unless it is about all of them."""
    several = rows["source"].nunique() > 1
    return [
        (f"{source}: " if several else "") + _remark(remark if several else _capital(remark), where, len(part))
        for source, part in rows.groupby("source", sort=False)
        for remark, where in _places(part).items()
    ]


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _about_repeated_tasks(rows: pd.DataFrame) -> list[str]:
    repeated = rows.duplicated(["source", "against", "budget", "dataset"]).any()
    return ["Several plans or training settings of a dataset count as separate tasks."] if repeated else []


def _places(rows: pd.DataFrame) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for where, (_, row) in zip(_places_of(rows), rows.iterrows(), strict=True):
        place = f"{row['against']} on {where} at {budget_words(row['budget'])}"
        for remark in row["remarks"].split("; ") if row["remarks"] else ():
            places.setdefault(remark, []).append(place)
    return places


def _places_of(rows: pd.DataFrame) -> pd.Series[str]:
    """Where each row is from: its dataset, and its plans where they differ."""
    return rows["dataset"] + ", " + rows["plans"] if several_of(rows, "plans") else rows["dataset"]


def _remark(remark: str, where: Sequence[str], count: int) -> str:
    if len(where) == count:
        return f"{remark}."
    listed = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
    return f"{remark} ({listed})."


def _summary_sentence(row: pd.Series[Any]) -> str:
    name = f"{row['against']} against {row['baseline']} at {budget_words(row['budget'])}"
    count = row["tasks_significant"]
    stars = [] if pd.isna(count) else [f"Holm p below {SIGNIFICANT:g} over cases and trainings on {count}"]
    parts = [f"Dice {_wins(row)}", *stars, *_costs(row)]
    return f"{name}, over {counted(int(row['n_tasks']), 'task')} (mean ± SD): {'; '.join(parts)}."


def _wins(row: pd.Series[Any]) -> str:
    words = []
    for direction, name in (("higher", "dice_gain_where_higher"), ("equal", ""), ("lower", "dice_loss_where_lower")):
        if count := row[f"tasks_{direction}"]:
            by = f" (by {mean_and_sd(row, name)})" if name and not math.isnan(row[f"{name}_mean"]) else ""
            words.append(f"{direction} on {count}{by}")
    return ", ".join(words) or "not known"


def _costs(row: pd.Series[Any]) -> list[str]:
    known = [name for name in RATIOS if row[f"{name}_tasks"]]
    words = [
        f"{RATIOS[name]} {mean_and_sd(row, name)}"
        + (f" ({counted(int(row[f'{name}_tasks']), 'task')})" if row[f"{name}_tasks"] < row["n_tasks"] else "")
        for name in known
    ]
    return [f"{', '.join(words)} of {row['baseline']}"] if words else []
