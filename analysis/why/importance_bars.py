"""Importances as bars: a panel per target, per axis a filled bar of PED-ANOVA above a hollow one of fANOVA."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.columns import BY_NAME
from analysis.importances import FANOVA, FRONT, PED_ANOVA
from analysis.style import MUTED, RC, SURFACE, Layout
from analysis.why.sheet import Sheet

_LOOKS: Mapping[str, Mapping[str, Any]] = {
    PED_ANOVA: {"facecolor": MUTED.light, "edgecolor": MUTED.light},
    FANOVA: {"facecolor": SURFACE.light, "edgecolor": MUTED.light, "linewidth": 1.2},
}
_OFFSETS = {PED_ANOVA: 0.2, FANOVA: -0.2}
_LABEL_LETTERS, _LETTER, _ROW = 24, 0.068, 0.42


def target_label(target: str) -> str:
    """`Dice`, `Training time`, or `Pareto front`."""
    return "Pareto front" if target == FRONT else BY_NAME[target].label


def importance_bars(
    shares: pd.DataFrame, labels: Mapping[str, str], *, subject: str, notes: Sequence[str], layout: Layout
) -> Figure:
    """The figure.

    Args:
        shares: as `importances.importances` gives them, of one dataset, not empty.
        labels: of axes, by name.
        subject: what it rests on.
        notes: sentences below.
        layout: size and arrangement.
    """
    targets = list(dict.fromkeys(shares["target"]))
    # The most important axis of all targets together on top.
    order = list(shares.groupby("axis")["importance"].mean().sort_values(kind="stable").index)
    names = [textwrap.fill(labels[axis], _LABEL_LETTERS) for axis in order]
    longest = max(len(line) for name in names for line in name.splitlines())
    sheet = Sheet(
        layout=layout,
        title="Which axis matters",
        subject=subject,
        notes=notes,
        rows=1 if layout.rail else len(targets),
        columns=len(targets) if layout.rail else 1,
        panel_height=max(1.0, _ROW * len(order)),
        left=0.35 + _LETTER * longest,
        gap_across=0.3,
        legend=[Patch(label=evaluator, **_LOOKS[evaluator]) for evaluator in (PED_ANOVA, FANOVA)],
    )
    with mpl.rc_context(RC):
        figure, panels = sheet.build()
        for position, (axes, target) in enumerate(zip(panels, targets, strict=True)):
            _draw(axes, shares[shares["target"] == target], order)
            axes.set_title(target_label(target), fontsize=9.5, loc="left", pad=5)
            axes.set_yticks(range(len(order)), names if position == 0 or not layout.rail else [""] * len(order))
            if layout.rail or position == len(targets) - 1:
                axes.set_xlabel("Importance (share of 1)")
    return figure


def _draw(axes: Axes, shares: pd.DataFrame, order: Sequence[str]) -> None:
    for evaluator, rows in shares.groupby("evaluator"):
        by_axis = rows.set_index("axis")["importance"].reindex(list(order))
        places = [place + _OFFSETS[str(evaluator)] for place in range(len(order))]
        axes.barh(places, by_axis, height=0.36, zorder=3, **_LOOKS[str(evaluator)])
        for place, share in zip(places, by_axis, strict=True):
            axes.text(share + 0.02, place, f"{share:.2f}", va="center", fontsize=7.5, color=MUTED.light, zorder=4)
    axes.set_xlim(0, 1.15)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.grid(False, axis="y")
