"""The papers' own tables and figures, and the schemes compared with constant patch size case by case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from analysis.comparison.compare import BASELINE, Comparison, compare, joined_with
from analysis.comparison.equal_cost import equal_cost_sentences, equal_cost_table
from analysis.comparison.pairs import methods_of
from analysis.comparison.reference import load
from analysis.comparison.text import notes, whole_table
from analysis.figures.sections import Exhibit, Section, stem_of
from analysis.papers.figure2 import STEM as FIGURE2
from analysis.papers.figure2 import figure2
from analysis.papers.figure3 import figure3
from analysis.papers.tables import patch_batch_sizes, table1, time_table
from analysis.statistics.evidence import Evidence
from analysis.tables.methods import METHOD_LABELS

COMPARISON, EQUAL_COST = "comparison", "equal_cost"


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
    lines = {dataset: _figure2(evidence, dataset) for dataset in evidence.datasets}
    exhibits = [
        table1(evidence.points, comparison, published=None if published is None else published.points),
        *lines.values(),
        figure3(comparison, published=theirs),
        _comparison(whole),
        _equal_cost(comparison),
        time_table(evidence),
        patch_batch_sizes(evidence.points),
    ]
    return Section(
        anchor="papers",
        heading="The papers' tables and figures",
        intro=f"Schemes against {METHOD_LABELS[BASELINE]} as the publication showed them: what is gained or lost in "
        "Dice, tested case by case, and what is saved.",
        exhibits=[exhibit for exhibit in exhibits if exhibit is not None],
        missing=[*_missing(evidence.points, comparison), *_without_budgets(lines)],
    )


def _figure2(evidence: Evidence, dataset: str) -> Exhibit | None:
    stem = FIGURE2 if len(evidence.datasets) == 1 else f"{FIGURE2}_{stem_of(dataset)}"
    return figure2(evidence, dataset, stem=stem)


def _comparison(comparison: Comparison) -> Exhibit | None:
    if comparison.rows.empty:
        return None
    return Exhibit(
        stem=COMPARISON,
        heading=f"Every scheme against {comparison.baseline}",
        notes=notes(replace(comparison, ambiguous=(), missing=())),
        data=comparison.rows,
        table=whole_table(comparison),
        caption=f"Every scheme against {comparison.baseline}: Dice, statistics over cases, ratios of training cost",
    )


def _equal_cost(comparison: Comparison) -> Exhibit | None:
    rows = comparison.equal_cost
    if rows.empty:
        return None
    return Exhibit(
        stem=EQUAL_COST,
        heading=f"Every scheme against {comparison.baseline} at equal cost",
        notes=equal_cost_sentences(rows),
        data=rows,
        table=equal_cost_table(rows),
        caption=f"Dice of the schemes and of {comparison.baseline} for the same training time, energy or voxels",
    )


def _without_budgets(lines: Mapping[str, Exhibit | None]) -> list[str]:
    datasets = [dataset for dataset, exhibit in lines.items() if exhibit is None]
    return [f"Fig. 2 needs published schemes at two budgets or more: not on {', '.join(datasets)}."] if datasets else []


def _missing(points: pd.DataFrame, comparison: Comparison) -> list[str]:
    """Why tables and figures are not there; empty when all are."""
    methods, baseline = methods_of(points), METHOD_LABELS[BASELINE]
    if not methods:
        return ["Table 1, Fig. 3 and the patch sizes need a finished trial of a published scheme; there is none."]
    if BASELINE not in methods:
        return [f"Fig. 3 and the comparison need finished trials of {baseline}; there is none."]
    if methods == [BASELINE]:
        return [f"Fig. 3 and the comparison need a finished trial of a scheme other than {baseline}; there is none."]
    sentences = [*comparison.ambiguous, *comparison.missing]
    if comparison.rows["standard_error"].isna().all():
        sentences.insert(0, f"Fig. 3 needs {baseline} and another scheme with the same settings on a common fold.")
    return sentences
