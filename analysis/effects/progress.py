"""What the hours of a study bought, trial by trial, and how busy the machine was where that changed the times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.encodings import belongs_to, marker, method_entries
from analysis.figures.exhibits import Exhibit, Part
from analysis.figures.sheet import Sheet
from analysis.figures.style import INK, MUTED, RULE, SHADE, Layout
from analysis.fronts.captions import subject
from analysis.fronts.front import Front
from analysis.fronts.hypervolume import box_of, volume_share
from analysis.statistics.evidence import Evidence
from analysis.tables.columns import BY_NAME
from analysis.tables.contention import sentences as contention
from analysis.tables.frame import KEY
from analysis.tables.units import counted, number

_HOUR = 3600
_LOADS = ("busy_cores", "trials_on_node")


def incumbents(evidence: Evidence, front: Front) -> pd.DataFrame:
    """The hypervolume of what was known, after each configuration of one dataset.

    Args:
        evidence: of the dataset.
        front: its points, without groups.

    Returns:
        A row per point in the order in which the last of its trials ended: `point_id`, `method`, `hours` (of all trials
        that had ended by then, whatever became of them; of GPUs where they trained on one) and `share` (of the box of
        the hypervolume, which all points span).
    """
    costs, trials = evidence.tables.costs, evidence.tables.trials
    ends = (costs["started_at"] + costs["seconds"]).groupby([costs[name] for name in KEY]).max()
    ended = trials.join(ends.rename("ended"), on=KEY).sort_values("ended", kind="stable")
    devices = ended["gpus"].where(ended["device"] == "cuda").fillna(1.0)
    ended["hours"] = (ended["total_seconds"].fillna(0.0) * devices).cumsum() / _HOUR
    known = ended[ended["point_id"].isin(front.points["point_id"])].groupby("point_id", sort=False)["hours"].max()
    points = front.points.assign(hours=front.points["point_id"].map(known)).sort_values("hours", kind="stable")
    box = box_of(points, front.objectives)
    shares = [volume_share(points.iloc[: count + 1], box) for count in range(len(points))]
    return points[["point_id", "method", "hours"]].assign(share=shares).reset_index(drop=True)


def progress(evidence: Evidence, front: Front) -> Part:
    """The exhibit of one dataset, or why there is none."""
    if len(front.points) < 2 or evidence.tables.costs.empty:
        return "Hypervolume against hours: it takes two finished configurations with their costs."
    found = incumbents(evidence, front)
    on_gpu = bool((evidence.tables.trials["device"].dropna() == "cuda").all())
    hours, last = "GPU hours" if on_gpu else "hours of trials", found.iloc[-1]
    half = found.loc[found["share"] >= last["share"] / 2, "hours"].iloc[0]
    return Exhibit(
        stem="hypervolume_over_hours",
        heading=f"What the study's {hours} bought",
        draw=lambda layout: _draw_progress(found, hours, subject(front.points), layout),
        alt=f"Step line of the hypervolume of all finished configurations against {hours}: half of what "
        f"{number(last['hours'])} h reached was there after {number(half)} h.",
        notes=(
            "Share of the box between reference and ideal point of Dice and training time that the configurations "
            "finished so far dominate; each mark is one of them, where its last trial ended.",
            "Hours are those of all trials that had ended by then, failed ones and validation included.",
        ),
        data=found,
    )


def _draw_progress(found: pd.DataFrame, hours: str, about: str, layout: Layout) -> Figure:
    legend = method_entries(found["method"])
    title = "What the study's hours bought"
    sheet = Sheet(layout=layout, title=title, subject=about, panel_height=2.1, legend=legend)
    with sheet.drawn() as (figure, [panel]):
        panel.step(found["hours"], found["share"], where="post", color=MUTED.light, lw=1.2, zorder=2)
        panel.fill_between(found["hours"], found["share"], step="post", color=SHADE.light, lw=0, zorder=0)
        for point in found.to_dict("records"):
            look = marker(point["method"], area=30)
            panel.plot([point["hours"]], [point["share"]], gid=belongs_to(point["point_id"]), zorder=3, **look)
        panel.set_xlim(0, float(found["hours"].max()) * 1.03 or 1.0)
        panel.set_ylim(0, float(found["share"].max()) * 1.1 or 1.0)
        panel.set_xlabel(f"{hours[0].upper()}{hours[1:]}", labelpad=6)
        panel.set_ylabel("Hypervolume, share")
    return figure


def load_of_the_machine(evidence: Evidence) -> Iterator[Exhibit]:
    """The exhibit of one dataset; none where the same work took the same time, or its machine's load is not known."""
    trials = evidence.tables.trials
    load = next((name for name in _LOADS if trials[name].notna().any()), None)
    said = contention(evidence.points)
    if load is None or not said:
        return
    known = trials.dropna(subset=["pace", load])
    slowest = known.sort_values("pace").iloc[-1]
    words = BY_NAME[load].label
    yield Exhibit(
        stem="pace_against_load",
        heading="The machine's load and the pace of trials",
        draw=lambda layout: _draw_load(known, load, subject(evidence.points), layout),
        alt=f"Pace of {counted(len(known), 'trial')} against {words.lower()}; the slowest took "
        f"{slowest['pace']:.2f} times the median for the same iterations.",
        notes=(*said, f"Pace: {BY_NAME['pace'].meaning}. {words}: {BY_NAME[load].meaning}."),
        data=known[[*KEY, "method", load, "pace"]],
    )


def _draw_load(known: pd.DataFrame, load: str, about: str, layout: Layout) -> Figure:
    legend = method_entries(known["method"])
    sheet = Sheet(layout=layout, title="Pace of trials", subject=about, panel_height=2.1, legend=legend)
    with sheet.drawn() as (figure, [panel]):
        low, high = float(known[load].min()), float(known[load].max())
        panel.set_xlim(low - 0.1 * (high - low) - 0.1, high + 0.1 * (high - low) + 0.1)
        panel.axhline(1, color=RULE.light, lw=1)
        for trial in known.to_dict("records"):
            gid: dict[str, Any] = {} if pd.isna(trial["point_id"]) else {"gid": belongs_to(trial["point_id"])}
            panel.plot([trial[load]], [trial["pace"]], zorder=3, **marker(trial["method"], area=30), **gid)
        panel.set_ylim(0, float(known["pace"].max()) * 1.1)
        panel.set_xlabel(BY_NAME[load].label, labelpad=6)
        panel.set_ylabel("Time, of the median", color=INK.light)
    return figure
