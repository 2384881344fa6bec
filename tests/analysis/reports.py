"""A report that is quick to write: real data, real files, and one Pareto plot instead of every chapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures.exhibits import Chapter
from analysis.page.fronts import fronts
from analysis.page.report import Report, write_report
from analysis.statistics.evidence import Evidence


def one_front(evidence: Evidence) -> Chapter:
    """The chapter of fronts with its first figure alone."""
    chapter = fronts(evidence)
    return replace(chapter, exhibits=chapter.exhibits[:1])


def no_chapter(evidence: Evidence) -> Chapter:
    """Nothing but the page around the chapters."""
    return Chapter(anchor="nothing", heading="Nothing")


def quick_report(studies: Sequence[Path], out: Path | None = None, country: str | None = None) -> Report:
    """With one figure."""
    return write_report(studies, out, country, chapters=[one_front])
