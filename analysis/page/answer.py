"""The answer, which a page begins with: a few sentences for each dataset, and the recommendation with its commands.

The configuration that `recommend --knee` takes is compared with constant patch size at its largest budget, case by
case. An interval that contains 0 is "not told apart", which is not the same as equal. What the sentences do not rest
on, seeds or folds or machines alike, is said in the last one. And the section of what confirming the front came to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.advice.advice import Recommendation, advice, at_knee
from analysis.advice.text import commands_of
from analysis.comparison.measure import CASES_AND_TRAININGS, Finished, measure
from analysis.comparison.pairs import BASELINE, MATCHED, Pair, percent
from analysis.figures.display_items import DisplayItem, Section, stem_of
from analysis.fronts.captions import amount_of, lowered, states
from analysis.statistics.study_results import StudyResults
from analysis.tables.columns import OBJECTIVES
from analysis.tables.contention import sentences as contention
from analysis.tables.format import MISSING, Table, counted
from analysis.tables.frame import FINISHED
from analysis.tables.methods import METHOD_LABELS
from study.common.errors import StudyError
from study.common.files import name_of
from study.store.ledger import Ledger
from study.store.records import OFF, Confirmation, Confirmed

_COSTS = ("runtime_seconds", "voxels")
_OUT = Path("recommended")
# Of the states of trials, those that will still change.
_TO_COME = ("new", "running", "interrupted")
_FEW_CASES = 50
# From here up three decimals show an interval.
_WIDE = 0.002


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is known about one dataset.

    Attributes:
        dataset: its name; empty where no trial has finished.
        sentences: two or three, with numbers, what is uncertain last.
        advice: what to take and why; empty where nothing can be recommended.
        commands: what each is for, and the command; that which trains the recommended configuration first.
    """

    dataset: str = ""
    sentences: Sequence[str]
    advice: str = ""
    commands: Sequence[tuple[str, str]] = ()


def answers(results: StudyResults) -> list[Answer]:
    """One for each dataset with a finished trial; without any, one that says where the trials stand."""
    if not results.datasets:
        return [Answer(sentences=_nothing(results.tables.trials))]
    return [_of_dataset(results.of(name), name) for name in results.datasets]


def _nothing(trials: pd.DataFrame) -> list[str]:
    if trials.empty:
        return ["The study has no trials yet: nothing to compare."]
    reasons = trials["failure"].dropna()
    because = f" The first that has a reason says: {reasons.iloc[0]}" if len(reasons) else ""
    return [f"No trial has finished, so there is no Dice to compare: {states(trials)}.{because}"]


def _of_dataset(results: StudyResults, dataset: str) -> Answer:
    points, chosen = results.points, _chosen(results)
    if chosen is None:
        best = points.sort_values("dice", ascending=False).iloc[0]
        told = f"The highest Dice of {counted(len(points), 'configuration')} is {_dice(best)}, of {_name(best)}."
        cost = "No cost was measured completely, so no configuration can be called worth its cost."
        return Answer(dataset=dataset, sentences=[told, cost, *_uncertain(results, 1)])
    found = advice(chosen, results, results.folders, out=_OUT, data=None)
    trainings = sorted(commands_of(found), key=lambda pair: not pair[0].startswith("train this very"))
    sentences = [_compared(results, chosen), *_highest(points, chosen), *_uncertain(results, chosen.candidates)]
    return Answer(dataset=dataset, sentences=sentences, advice=_advice(chosen), commands=trainings)


def _chosen(results: StudyResults) -> Recommendation | None:
    """The knee of Dice against time, or against voxels where no time is known."""
    for name in _COSTS:
        try:
            return at_knee(results, OBJECTIVES[name])
        except StudyError:
            continue
    return None


def _advice(chosen: Recommendation) -> str:
    others = len(chosen.alternatives)
    alike = f" {others} as cheap cannot be told apart from it." if others else ""
    reason = chosen.reason.partition(", the farthest")[0]
    return f"{_name(chosen.point)}: {reason}.{alike}"


def _compared(results: StudyResults, chosen: Recommendation) -> str:
    """The recommended configuration against the baseline; of the baseline itself, the best of the others."""
    points, point = results.points, chosen.point
    cost = chosen.front.objectives[1]
    alone = f"{_name(point)}: Dice {_dice(point)} for {amount_of(cost, point[cost.name])} a training"
    baseline, which = _baseline(points, point), " of its plans" if points["plans"].nunique() > 1 else ""
    if baseline is None:
        return f"{alone}; no finished trial of {METHOD_LABELS[BASELINE]}{which} to compare it with."
    if baseline["point_id"] == point["point_id"]:
        others = points[(points["point_id"] != point["point_id"]) & (points["plans"] == point["plans"])]
        others = others.sort_values("dice", ascending=False)
        if others.empty:
            return f"{alone}; no other configuration{which} has finished."
        point = others.iloc[0]
    return _difference(results, baseline, point)


def _baseline(points: pd.DataFrame, point: pd.Series[Any]) -> pd.Series[Any] | None:
    """Constant patch size of the point's plans at its largest budget, with as many of its settings as there are."""
    found: pd.DataFrame = points[(points["method"] == BASELINE) & (points["plans"] == point["plans"])]
    if found.empty:
        return None
    names = [name for name in MATCHED if name != "budget"]
    alike = sum((found[name] == point[name]).fillna(False).astype(int) for name in names)
    return found.assign(alike=alike).sort_values(["alike", "budget", "n_folds"], ascending=False).iloc[0]


def _difference(results: StudyResults, baseline: pd.Series[Any], point: pd.Series[Any]) -> str:
    names = (_name(baseline), _name(point))
    pair = Pair(baseline=baseline, against=point, baseline_name=names[0], against_name=names[1])
    row = measure(pair, Finished(results), alternative="greater")
    if not row["n_folds"]:
        return f"{names[1]}: Dice {_dice(point)}; {names[0]} {_dice(baseline)}, on other folds: not comparable."
    spent = f" for {_ratio(row, names[0])}" if _ratio(row, names[0]) else ""
    return f"{names[1]}: Dice {row['against_dice']:.3f}{spent}; {_interval(row)}."


def _ratio(row: dict[str, Any], baseline: str) -> str:
    """`44 % of CPS' training time`, or of its voxels where times cannot be compared."""
    whose = f"{baseline}'" if baseline.endswith(("s", "S")) else f"{baseline}'s"
    if pd.notna(row["runtime_ratio"]):
        return f"{percent(row['runtime_ratio'], 0)} of {whose} training time"
    return f"{percent(row['voxel_ratio'], 0)} of {whose} voxels" if pd.notna(row["voxel_ratio"]) else ""


def _interval(row: dict[str, Any]) -> str:
    low, high = row["difference_low"], row["difference_high"]
    if pd.isna(low):
        return f"difference {_signed(row['dice_difference'], 3)}, too few shared cases for an interval"
    digits = 3 if high - low >= _WIDE else 4
    value, *ends = (_signed(one, digits) for one in (row["dice_difference"], low, high))
    value = value if row["dice_difference"] <= 0 else f"+{value}"
    verdict = "not told apart" if low <= 0 <= high else "higher" if low > 0 else "lower"
    if verdict != "not told apart" and row["covers"] != CASES_AND_TRAININGS:
        verdict += " in these trainings"
    return f"difference {value} [{ends[0]}, {ends[1]}] over {counted(int(row['n_cases']), 'case')}: {verdict}"


def _signed(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _name(point: pd.Series[Any]) -> str:
    """Its curriculum; nobody names a whole budget."""
    return str(point["summary"]).replace(", budget 100%", "")


def _dice(point: pd.Series[Any]) -> str:
    """`0.815 [0.790, 0.840]`."""
    if pd.isna(point["dice_low"]):
        return f"{point['dice']:.3f}"
    return f"{point['dice']:.3f} [{point['dice_low']:.3f}, {point['dice_high']:.3f}]"


def _highest(points: pd.DataFrame, chosen: Recommendation) -> Iterator[str]:
    """Said where the recommended configuration is not the one."""
    best, cost = points.sort_values("dice", ascending=False).iloc[0], chosen.front.objectives[1]
    if len(points) > 1 and best["dice"] > chosen.point["dice"]:
        spent = f", for {amount_of(cost, best[cost.name])}" if pd.notna(best[cost.name]) else ""
        mine = amount_of(cost, chosen.point[cost.name])
        yield f"The highest Dice, {_dice(best)}, has {_name(best)}{spent} of {lowered(cost.label)} against {mine}."


def _uncertain(results: StudyResults, candidates: int) -> Iterator[str]:
    points, trials = results.points, results.tables.trials
    to_come = int(trials["state"].isin(_TO_COME).sum())
    lost = int((~trials["state"].isin((FINISHED, *_TO_COME))).sum())
    cases = points["n_cases"].max()
    doubts = {
        f"{counted(to_come, 'trial')} still to finish": to_come,
        f"{counted(lost, 'trial')} without a result": lost,
        "one seed, so another training may differ by more": points["n_seeds"].max() == 1,
        "one fold": points["n_folds"].max() == 1,
        f"{'no' if pd.isna(cases) else cases} validation cases": pd.isna(cases) or cases < _FEW_CASES,
        "folds differ between configurations": points["folds"].nunique() > 1,
        "times are of different hardware": points["hardware"].nunique() > 1,
        "the same work did not always take the same time": contention(points),
        f"the best of {candidates} looks better than it is": candidates > 1,
    }
    said = [words for words, applies in doubts.items() if applies]
    if said:
        yield f"Not certain: {'; '.join(said)}."


_CONFIRMED = (
    "Whether the points that the search found are on the front, judged by trainings on folds, or with seeds, that it "
    "did not see. P(on front) is of the posterior of Dice by those, with costs taken as exact; the probability beside "
    "a front is a bootstrap over the cases and trainings of all folds, those that chose the points included."
)
_HEADINGS = ("Point", "Settings", "Verdict", "P(on front)", "Dice, judged", "Dice, search", "Folds", "Seeds", "Hours")
_NUMERIC = (True, False, False, True, True, True, False, False, True)


def confirmation(studies: Sequence[Path]) -> list[Section]:
    """What confirming the front came to, by point, as `python -m study confirm` left it; none where nothing was.

    Args:
        studies: folders of studies; reports and folders of tables have no confirmation.

    Raises:
        LedgerError: what is stored of it is damaged.
    """
    found = {root: each for root in dict.fromkeys(studies) if (each := Ledger(root).confirmation()) is not None}
    items = [_item(root, each, several=len(studies) > 1) for root, each in found.items()]
    return [Section(anchor="confirmed", heading="Confirmed", intro=_CONFIRMED, items=items)] if found else []


def _item(root: Path, found: Confirmation, *, several: bool) -> DisplayItem:
    name = name_of(root.resolve())
    points = sorted(found.points, key=lambda point: (point.dataset, *point.costs.values()))
    shown = [point for point in points if point.verdict != OFF or point.trainings]
    return DisplayItem(
        stem=f"confirmation_{stem_of(name)}" if several else "confirmation",
        heading=f"Who is on the front of {name}" if several else "Who is on the front",
        notes=_about(found, len(points) - len(shown)),
        data=_tidy(points),
        table=Table(headings=_HEADINGS, numeric=_NUMERIC, rows=tuple(map(_cells, shown))),
        caption=f"Verdicts over {', '.join(found.objectives)}",
    )


def _about(found: Confirmation, others: int) -> list[str]:
    told = [f"{found.words()[0].upper()}{found.words()[1:]}."]
    if others:
        told.append(
            f"{others} points that the search's own folds leave no chance of being on the front are not listed."
        )
    return told


def _cells(point: Confirmed) -> tuple[str, ...]:
    return (
        str(point.number),
        ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.settings.items()),
        point.verdict,
        f"{point.probability:.2f}",
        MISSING if point.dice is None else f"{point.dice:.4f}",
        f"{point.dice_of_search:.4f}",
        " ".join(map(str, point.folds)) or MISSING,
        " ".join(map(str, point.seeds)) or MISSING,
        f"{point.gpu_hours:.3g}",
    )


def _tidy(points: Sequence[Confirmed]) -> pd.DataFrame:
    """A row a point, in words, GPU-hours and the units of the costs' names."""
    lists = ("folds", "seeds", "trial_ids")
    plain = ("number", "dataset", "verdict", "probability", "dice", "dice_of_search", "trainings", "gpu_hours")
    rows = [
        {
            **{name: getattr(point, name) for name in plain},
            **point.settings,
            **point.costs,
            **{name: " ".join(map(str, getattr(point, name))) for name in lists},
        }
        for point in points
    ]
    return pd.DataFrame(rows)
