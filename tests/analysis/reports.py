"""A report that is quick to write: real data, real files, and the first figure of every section alone, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures.display_items import Section
from analysis.page.report import Report, write_report
from analysis.page.sections import fronts
from analysis.statistics.study_results import StudyResults


def quick_report(studies: Sequence[Path], out: Path | None = None, country: str | None = None, most: int = 1) -> Report:
    """With the first figures of the section of fronts."""
    return write_report(studies, out, country, sections=[only(fronts, most=most)])


def only(
    chapter: Callable[[StudyResults], Section], *stems: str, most: int | None = None
) -> Callable[[StudyResults], Section]:
    """A section with its first items, or those of some stems, alone."""

    def section(results: StudyResults) -> Section:
        told = chapter(results)
        return replace(told, items=[one for one in told.items if not stems or one.stem in stems][:most])

    return section
