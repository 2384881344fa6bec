"""Chapters of a report: each module answers one question about studies with exhibits."""

from __future__ import annotations

from collections.abc import Callable

from analysis.chapters.fronts import fronts
from analysis.evidence import Evidence
from analysis.exhibits import Chapter

CHAPTERS: tuple[Callable[[Evidence], Chapter], ...] = (fronts,)
"""The chapters of a report, in order."""
