"""A report that is quick to write: real data, real files, and one Pareto plot instead of every chapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.chapters.fronts import fronts
from analysis.evidence import Evidence
from analysis.exhibits import Chapter
from analysis.report import Report, write_report


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
