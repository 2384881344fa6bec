"""A report that is quick to write: real data, real files, and the first figure of every section alone, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures.exhibits import Section
from analysis.page.report import Report, write_report
from analysis.page.sections import fronts
from analysis.statistics.evidence import Evidence


def quick_report(studies: Sequence[Path], out: Path | None = None, country: str | None = None, most: int = 1) -> Report:
    """With the first figures of the section of fronts."""
    return write_report(studies, out, country, sections=[only(fronts, most=most)])


def only(chapter: Callable[[Evidence], Section], *stems: str, most: int | None = None) -> Callable[[Evidence], Section]:
    """A section with its first exhibits, or those of some stems, alone."""

    def section(evidence: Evidence) -> Section:
        told = chapter(evidence)
        return replace(told, exhibits=[one for one in told.exhibits if not stems or one.stem in stems][:most])

    return section
