"""A report that is quick to write: real data, real files, and one Pareto plot instead of every section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures.exhibits import Section
from analysis.page.fronts import fronts
from analysis.page.report import Report, write_report
from analysis.statistics.evidence import Evidence


def one_front(evidence: Evidence) -> Section:
    """The section of fronts with its first figure alone."""
    section = fronts(evidence)
    return replace(section, exhibits=section.exhibits[:1])


def no_section(evidence: Evidence) -> Section:
    """Nothing but the page around the sections."""
    return Section(anchor="nothing", heading="Nothing")


def quick_report(studies: Sequence[Path], out: Path | None = None, country: str | None = None) -> Report:
    """With one figure."""
    return write_report(studies, out, country, sections=[one_front])
