"""Costs as stacked bars: a bar per group of trials, by cause, the training by stage from pale to strong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analysis.marks import belongs_to
from analysis.style import INK, METHOD_STYLES, MUTED, RC, RULE, SURFACE, Layout
from analysis.units import Scale, label_with_unit, number, reading_scale
from analysis.why.cost_parts import AMOUNTS, CAUSES, CostParts
from analysis.why.sheet import Sheet

_DRAWN = {"seconds": "Time per trial", "co2_kg": "CO₂ per trial"}
_ROW, _LETTER = 0.3, 0.068
_PALEST = 0.35
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "setup": {"facecolor": RULE.light, "edgecolor": SURFACE.light},
    # Not plain: CPS is a grey.
    "online_validation": {"facecolor": SURFACE.light, "edgecolor": MUTED.light, "hatch": "....."},
    "final_validation": {"facecolor": SURFACE.light, "edgecolor": MUTED.light},
    "waste": {"facecolor": SURFACE.light, "edgecolor": INK.light, "hatch": "//////"},
}


def cost_bars(parts: CostParts, *, subject: str, notes: Sequence[str], layout: Layout) -> Figure:
    """The figure: time, and CO₂ where it was measured in every group.

    Args:
        parts: with at least one group.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement.
    """
    drawn = [name for name in _DRAWN if parts.causes[name].notna().all()]
    groups = parts.groups
    sheet = Sheet(
        layout=layout,
        title="Where the cost went",
        subject=subject,
        notes=notes,
        rows=1 if layout.rail else len(drawn),
        columns=len(drawn) if layout.rail else 1,
        panel_height=max(0.9, _ROW * len(groups)),
        left=0.35 + _LETTER * max(map(len, groups)),
        gap_across=0.35,
        gap_down=0.85,
        legend=_legend(parts),
    )
    with mpl.rc_context(RC):
        figure, panels = sheet.build()
        for place, (panel, name) in enumerate(zip(panels, drawn, strict=True)):
            _draw(panel, parts, name)
            panel.set_yticks(range(len(groups)), groups if place == 0 or not layout.rail else [""] * len(groups))
            for label, group in zip(panel.get_yticklabels(), groups, strict=True):
                label.set_gid(belongs_to(*parts.points[group]))
    return figure


def _legend(parts: CostParts) -> list[Patch]:
    spent = parts.causes.groupby("cause")["seconds"].sum()
    names = [cause for cause in CAUSES if spent.get(cause, 0.0) > 0]
    return [
        Patch(label=_training_words(parts), facecolor=METHOD_STYLES["pgps"].paint.light)
        if cause == "training"
        else Patch(label=CAUSES[cause].lower(), **_LOOKS[cause])
        for cause in names
    ]


def _training_words(parts: CostParts) -> str:
    staged = parts.stages.groupby("group")["stage"].nunique().gt(1).any()
    return "training, a colour per scheme" + (", later stages stronger" if staged else "")


def _draw(panel: Axes, parts: CostParts, name: str) -> None:
    groups = parts.groups
    totals = parts.causes.groupby("group", sort=False)[name].sum()
    scale = reading_scale(AMOUNTS[name], float(totals.max()))
    for place, group in enumerate(groups):
        _bar(panel, place, parts, group, name, scale)
        total = float(totals[group]) * scale.factor
        panel.annotate(
            number(total),
            (total, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.6,
            color=MUTED.light,
            gid=belongs_to(*parts.points[group]),
        )
    panel.set_ylim(len(groups) - 0.45, -0.55)
    panel.set_xlim(0, float(totals.max()) * scale.factor * 1.13 or 1.0)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    panel.set_xlabel(label_with_unit(_DRAWN[name], scale.unit))
    panel.grid(False, axis="y")


def _bar(panel: Axes, place: int, parts: CostParts, group: str, name: str, scale: Scale) -> None:
    rows = parts.causes[parts.causes["group"] == group]
    amounts = dict(zip(rows["cause"], rows[name].to_numpy(dtype=float) * scale.factor, strict=True))
    color = METHOD_STYLES[str(rows["method"].iloc[0])].paint.light
    left = 0.0
    for cause in CAUSES:
        amount = amounts[cause]
        if amount <= 0:
            continue
        pieces = _training_pieces(parts.stages, group, name, scale, amount) if cause == "training" else [(amount, 1.0)]
        for width, alpha in pieces:
            look = (
                {"facecolor": color, "alpha": alpha, "lw": 0} if cause == "training" else {**_LOOKS[cause], "lw": 0.8}
            )
            (piece,) = panel.barh(place, width, left=left, height=0.62, zorder=3, **look)
            piece.set_gid(belongs_to(*parts.points[group]))
            left += width


def _training_pieces(
    stages: pd.DataFrame, group: str, name: str, scale: Scale, whole: float
) -> list[tuple[float, float]]:
    """Width and strength of each stage's piece; one piece where stages are unknown."""
    amounts = stages.loc[stages["group"] == group, name].to_numpy(dtype=float) * scale.factor
    if len(amounts) < 2:
        return [(whole, 1.0)]
    step = (1.0 - _PALEST) / (len(amounts) - 1)
    return [(float(width), _PALEST + step * stage) for stage, width in enumerate(amounts)]
