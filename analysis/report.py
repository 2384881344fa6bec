"""A report: the table of trials, Pareto figures and a page, written to one folder.

    report/
      report.html                       everything to read, in one file
      trials.parquet, trials.csv        every trial, every column
      trials.md                         every trial, the columns to read
      front.csv                         the non-dominated points of every figure
      pareto_dice_runtime.png, .svg     Dice against training time
      pareto_dice_co2.png, .svg         Dice against CO₂, unless it was not measured

With several datasets, figures carry the dataset's name. Where trials have a few different budgets, a second figure of
each kind draws a front per budget: `pareto_dice_runtime_by_budget`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd

from analysis.basis import basis, energy_source, states
from analysis.captions import description, notes, title
from analysis.columns import POINT_COLUMNS, TRIAL_COLUMNS
from analysis.evidence import gather
from analysis.figures import MOST_GROUPS, pareto_figure
from analysis.frame import FINISHED, UNREADABLE
from analysis.front import Front, pareto_front
from analysis.images import as_png, as_svg, inline_svg
from analysis.page import Chart, Page, Section, render
from analysis.style import NARROW, WIDE
from analysis.tables import Table, markdown, readable, without_empty
from analysis.units import counted
from study import __version__
from study.errors import MachineError
from study.files import write_atomically

FOLDER = "report"
DOTS_PER_INCH = 150
_TABLES = ("trials.parquet", "trials.csv", "trials.md", "front.csv")
# Kind of figure, and its cost.
_KINDS = (("runtime", "runtime_seconds"), ("co2", "co2_kg"))
_TRIAL_TABLE = (
    *("study", "dataset", "trial_id", "state", "method", "fold", "seed", "dice", "runtime_seconds", "co2_kg"),
    *("energy_kwh", "voxel_share", "n_stages", "min_patch", "batch_growth", "order", "budget", "optimizer"),
    *("initial_learning_rate", "epochs", "iterations", "total_seconds", "waste_seconds", "attempts", "failure"),
)
_FRONT_TABLE = (
    *("summary", "dice", "runtime_seconds", "co2_kg", "energy_kwh", "voxel_share"),
    *("n_stages", "iterations", "folds", "n_seeds", "trial_ids"),
)


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A front to draw; `stem` names its files."""

    stem: str
    front: Front


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was written.

    Attributes:
        folder: of the report; page: its report.html.
        figures: the PNG files.
        missing: why a figure that one might expect was not drawn.
        trials: the frame of trials.
    """

    folder: Path
    page: Path
    figures: tuple[Path, ...]
    missing: tuple[str, ...]
    trials: pd.DataFrame


def write_report(studies: Sequence[Path], out: Path | None = None) -> Report:
    """Write the report of one or several studies.

    Args:
        studies: study folders.
        out: folder to write to; by default `report` inside the study, or here for several studies.

    Raises:
        LedgerError: a folder is no readable study.
        MachineError: the report cannot be written.
    """
    evidence = gather(studies)
    trials, points = evidence.tables.trials, evidence.points
    folder = out or (studies[0] / FOLDER if len(studies) == 1 else Path(FOLDER))
    names = ", ".join(dict.fromkeys(study.resolve().name for study in studies))
    drawn, missing = _figures(points, trials)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_figures(folder)
        _write_tables(folder, trials, drawn)
        pictures = tuple(_write_figure(folder, figure) for figure in drawn)
        _write(folder / "report.html", render(_page(names, trials, points, drawn, missing)).encode())
    except OSError as error:
        raise MachineError(f"cannot write the report to {folder}: {error.strerror}; name another --out") from error
    reasons = tuple(reason for sentences in missing.values() for reason in sentences)
    return Report(folder=folder, page=folder / "report.html", figures=pictures, missing=reasons, trials=trials)


def _figures(points: pd.DataFrame, trials: pd.DataFrame) -> tuple[list[Plot], dict[str, list[str]]]:
    """The figures to draw, and by dataset why others are not."""
    drawn: list[Plot] = []
    missing: dict[str, list[str]] = {}
    several = points["dataset"].nunique() > 1
    for dataset, part in points.groupby("dataset"):
        suffix = f"_{dataset}" if several else ""
        for kind, cost in _KINDS:
            stem = f"pareto_dice_{kind}{suffix}"
            front = pareto_front(part, ("dice", cost))
            if front.points.empty:
                missing.setdefault(str(dataset), []).append(_why_missing(front, trials[trials["dataset"] == dataset]))
                continue
            drawn.append(Plot(stem=stem, front=front))
            if _budgets_compare(front.points):
                drawn.append(Plot(stem=f"{stem}_by_budget", front=pareto_front(part, ("dice", cost), by="budget")))
    return drawn, missing


def _budgets_compare(points: pd.DataFrame) -> bool:
    """Whether there are a few budgets, and several points at most of them."""
    counts = points["budget"].value_counts()
    return 2 <= len(counts) <= MOST_GROUPS and counts.median() >= 2


def _why_missing(front: Front, trials: pd.DataFrame) -> str:
    dice, cost = front.objectives
    if front.dropped[dice.name] == front.n_dropped:
        return f"No figure of {cost.label}: no finished trial has a Dice."
    source = energy_source(trials[trials["state"] == FINISHED])
    because = f" ({source})" if cost.is_energy and source else ""
    return f"No figure of {cost.label}: it was not measured completely in any finished configuration{because}."


def _write_tables(folder: Path, trials: pd.DataFrame, drawn: Sequence[Plot]) -> None:
    _write(folder / "trials.parquet", trials.to_parquet(index=False))
    _write(folder / "trials.csv", trials.to_csv(index=False).encode())
    _write(folder / "trials.md", markdown(_trial_table(trials)).encode())
    _write(folder / "front.csv", front_rows(drawn).to_csv(index=False).encode())


def front_rows(drawn: Sequence[Plot]) -> pd.DataFrame:
    """The non-dominated points of all figures: `figure` (name of its files), `number` in it, the columns of points."""
    names = ["figure", "number", *(column.name for column in POINT_COLUMNS)]
    parts = [figure.front.best.assign(figure=figure.stem)[names] for figure in drawn]
    return pd.concat(parts) if parts else pd.DataFrame(columns=names)


def _trial_table(trials: pd.DataFrame) -> Table:
    """The columns to read; which study and dataset only where there are several."""
    said = [name for name in ("study", "dataset") if trials[name].nunique() == 1]
    return readable(trials, [name for name in without_empty(trials, _TRIAL_TABLE) if name not in said])


def _write_figure(folder: Path, figure: Plot) -> Path:
    drawing = pareto_figure(figure.front)
    path = folder / f"{figure.stem}.png"
    _write(path, as_png(drawing, dots_per_inch=DOTS_PER_INCH))
    _write(path.with_suffix(".svg"), as_svg(drawing).encode())
    return path


def _remove_figures(folder: Path) -> None:
    """Remove the figures of an earlier report: not every one is drawn again."""
    for kind, _ in _KINDS:
        for pattern in (f"pareto_dice_{kind}*.png", f"pareto_dice_{kind}*.svg"):
            for path in folder.glob(pattern):
                path.unlink()


def _page(
    names: str, trials: pd.DataFrame, points: pd.DataFrame, drawn: Sequence[Plot], missing: dict[str, list[str]]
) -> Page:
    datasets = sorted(set(points["dataset"]))
    return Page(
        title=f"Study report: {names}",
        subtitle=states(trials),
        basis=basis(trials, points),
        notices=list(_notices(trials)),
        sections=[_section(dataset, drawn, missing.get(dataset, [])) for dataset in datasets],
        trials=_trial_table(trials) if len(trials) else None,
        columns=TRIAL_COLUMNS,
        files=[*_TABLES, *(f"{figure.stem}.{ending}" for figure in drawn for ending in ("png", "svg"))],
        footer=f"Made by pgps-study {__version__} on {datetime.date.today().isoformat()}.",
    )


def _notices(trials: pd.DataFrame) -> Iterator[str]:
    if trials.empty:
        yield "The study has no trials yet: nothing to compare."
    elif not (trials["state"] == FINISHED).any():
        yield "No trial has finished, so there is no front to draw. The table says where each one stands."
    for state in ("failed", UNREADABLE):
        count = int((trials["state"] == state).sum())
        if count:
            yield f"{counted(count, 'trial')} {state}: in the table with the reason, in no figure."


def _section(dataset: str, drawn: Sequence[Plot], missing: Sequence[str]) -> Section:
    mine = [figure for figure in drawn if (figure.front.points["dataset"] == dataset).any()]
    return Section(heading=dataset, charts=[_chart(figure) for figure in mine], missing=missing)


def _chart(figure: Plot) -> Chart:
    front, best, alt = figure.front, figure.front.best, description(figure.front)
    wide, narrow = (
        inline_svg(pareto_figure(front, layout=layout), prefix=f"{figure.stem}-{name}", alt=alt, css_class=name)
        for name, layout in (("wide", WIDE), ("narrow", NARROW))
    )
    names = ["number", *([front.by] if front.by else []), *without_empty(best, _FRONT_TABLE)]
    caption = f"On the front of {title(front)}, {len(best)} of {counted(len(front.points), 'point')}"
    return Chart(wide=wide, narrow=narrow, notes=notes(front), table=readable(best, names), caption=caption)


def _write(path: Path, content: bytes) -> None:
    def put(handle: IO[bytes]) -> None:
        handle.write(content)

    write_atomically(path, put)
