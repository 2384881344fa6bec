"""Section: whether schemes are as good as constant patch size, case by case, and the papers' own tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pandas as pd

from analysis.comparison.compare import BASELINE, Comparison, compare, joined_with
from analysis.comparison.equal_cost import equal_cost_sentences, equal_cost_table
from analysis.comparison.pairs import methods_of
from analysis.comparison.reference import load
from analysis.comparison.text import notes, whole_table
from analysis.figures.exhibits import Exhibit, Section, stem_of
from analysis.papers.cases import dice_per_case
from analysis.papers.figures import figure2, figure3
from analysis.papers.tables import patch_batch_sizes, table1, time_table
from analysis.statistics.evidence import Evidence
from analysis.tables.methods import METHOD_LABELS

_MOST_NAMES = 3


def _question(points: pd.DataFrame) -> str:
    """`Are PGPS and PGPS+ as good as CPS?`."""
    names = [METHOD_LABELS[method] for method in methods_of(points) if method != BASELINE]
    if not 1 <= len(names) <= _MOST_NAMES:
        return f"Are the schemes as good as {METHOD_LABELS[BASELINE]}?"
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{'Is' if len(names) == 1 else 'Are'} {listed} as good as {METHOD_LABELS[BASELINE]}?"


def papers(evidence: Evidence, *, reference: str | None = None) -> Section:
    """Table 1, Fig. 2, Fig. 3, the supplement's table of the MICCAI paper, the PDL poster's table, and the statistics.

    Args:
        evidence: any study; what lacks its trials is named in `Section.missing`.
        reference: name of a publication whose numbers are shown beside ours.

    Raises:
        InvalidInputError: an unknown publication.
    """
    comparison = compare(evidence)
    published = load(reference) if reference else None
    theirs = None if published is None else compare(published)
    whole = comparison if theirs is None or comparison.rows.empty else joined_with(comparison, theirs)
    endings = {name: f"_{stem_of(name)}" if len(evidence.datasets) > 1 else "" for name in evidence.datasets}
    lines = [figure2(evidence, dataset, stem=f"dice_by_budget{ending}") for dataset, ending in endings.items()]
    exhibits = [
        figure3(comparison, published=theirs),
        *(dice_per_case(evidence, comparison, name, stem=f"dice_per_case{end}") for name, end in endings.items()),
        *_comparisons(whole, comparison.equal_cost),
        *lines,
        table1(evidence.points, comparison, published=None if published is None else published.points),
        time_table(evidence),
        patch_batch_sizes(evidence.points),
    ]
    without_budgets = [line for line in lines if isinstance(line, str)]
    missing = list(_missing(evidence.points, comparison, without_budgets))
    return Section(
        anchor="papers",
        heading=_question(evidence.points),
        intro=f"Schemes against {METHOD_LABELS[BASELINE]}: what is gained or lost in Dice, tested case by case, and "
        "what is saved. Not told apart is not the same as equal: see the smallest difference that would be found.",
        exhibits=[exhibit for exhibit in exhibits if isinstance(exhibit, Exhibit)],
        missing=missing,
    )


def _comparisons(whole: Comparison, equal: pd.DataFrame) -> Iterator[Exhibit]:
    against = f"Every scheme against {whole.baseline}"
    if len(whole.rows):
        yield Exhibit(
            stem="comparison",
            folded=True,
            heading=against,
            notes=notes(replace(whole, ambiguous=(), missing=())),
            data=whole.rows,
            table=whole_table(whole),
            caption=f"{against}: Dice, statistics over cases, ratios of training cost",
        )
    if len(equal):
        yield Exhibit(
            stem="equal_cost",
            folded=True,
            heading=f"{against} at equal cost",
            notes=equal_cost_sentences(equal),
            data=equal,
            table=equal_cost_table(equal),
            caption=f"Dice of the schemes and of {whole.baseline} for the same training time, energy or voxels",
        )


def _missing(points: pd.DataFrame, comparison: Comparison, without_budgets: Sequence[str]) -> Iterator[str]:
    """Why tables and figures are not there."""
    methods, baseline = methods_of(points), METHOD_LABELS[BASELINE]
    if not methods:
        yield "Table 1, Fig. 3 and the patch sizes need a finished trial of a published scheme; there is none."
    elif BASELINE not in methods:
        yield f"Fig. 3 and the comparison need finished trials of {baseline}; there is none."
    elif methods == [BASELINE]:
        yield f"Fig. 3 and the comparison need a finished trial of a scheme other than {baseline}; there is none."
    else:
        if comparison.rows["standard_error"].isna().all():
            yield f"Fig. 3 needs {baseline} and another scheme with the same settings on a common fold."
        yield from (*comparison.ambiguous, *comparison.missing)
    if without_budgets:
        yield f"Fig. 2 needs published schemes at two budgets or more: not on {', '.join(without_budgets)}."
