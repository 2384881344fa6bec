"""Published numbers, readable as a study: `load("miccai2024")` gives points like those of our own trials.

A folder here is one publication: CSV files as printed, and `source.toml` with the citation, the place in the paper of
every file, and what a reader must know. What a paper does not print is missing, never guessed: there are no trials, no
cases, no energy. Units are converted on loading; the printed numbers stay as they are in the files.

What a publication's text says about its own table, checked by the code that compares trials.
"""

from __future__ import annotations

import io
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd

from analysis.comparison.compare import compare
from analysis.statistics.study_results import StudyResults
from analysis.tables.columns import POINT_COLUMNS, dtypes
from analysis.tables.frame import tables_of
from analysis.tables.methods import METHOD_LABELS
from study.common.errors import InvalidInputError

REFERENCES = ("miccai2024",)
"""Names of the publications."""

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where published numbers come from.

    Attributes:
        name: as `load` takes it.
        title, authors, venue, arxiv, url: of the publication.
        hardware: that its costs were measured on.
        files: name of each file with its place in the publication.
        remarks: sentences that a reader of the numbers must know.
    """

    name: str
    title: str
    authors: str
    venue: str
    arxiv: str
    url: str
    hardware: str
    files: dict[str, str]
    remarks: tuple[str, ...]

    @property
    def citation(self) -> str:
        """The publication in a line."""
        return f"{self.authors}: {self.title}. {self.venue}, arXiv {self.arxiv}"


def load(name: str) -> StudyResults:
    """A publication's numbers as points, with empty tables of trials, epochs, cases and costs.

    Raises:
        InvalidInputError: an unknown name.
    """
    facts = _facts(name)
    names = [column.name for column in POINT_COLUMNS]
    rows = [_point(name, facts, row) for _, row in table1(name).iterrows()]
    points = pd.DataFrame(rows, columns=names, dtype=object).astype(dtypes(POINT_COLUMNS))
    return StudyResults(tables=tables_of({}), points=points)


def source(name: str) -> Publication:
    """The origin of a publication's numbers.

    Raises:
        InvalidInputError: an unknown name.
    """
    facts = _facts(name)
    words = {key: facts[key] for key in ("title", "authors", "venue", "arxiv", "url", "hardware")}
    return Publication(name=name, **words, files=facts["files"], remarks=tuple(facts["remarks"]["general"]))


def table1(name: str) -> pd.DataFrame:
    """Table 1 as printed: task, dataset, method, dice, runtime_hours, voxels_percent, co2_kg.

    Raises:
        InvalidInputError: an unknown name.
    """
    return pd.read_csv(io.StringIO(_text(name, "table1.csv")))


def claims_of(name: str) -> pd.DataFrame:
    """What the text says about Table 1: method, quantity, mean, sd (both as printed, text) and unit.

    Raises:
        InvalidInputError: an unknown name.
    """
    return pd.read_csv(io.StringIO(_text(name, "claims.csv")), dtype=str, keep_default_na=False)


def is_published(points: pd.DataFrame) -> pd.Series[bool]:
    """Which points come from a publication and not from trials."""
    return points["studies"].isin([published(name) for name in REFERENCES])


def published(name: str) -> str:
    """What the column `studies` of a publication's points says."""
    return f"{name} (published)"


def _point(name: str, facts: dict[str, Any], row: pd.Series[Any]) -> dict[str, Any]:
    folds = int(facts["folds"])
    return {
        "point_id": f"{name}-{row['method']}-{row['dataset'][7:10]}",
        "dataset": row["dataset"],
        "scheme": row["method"],
        "method": row["method"],
        **{key: facts[key] for key in ("plans", "configuration", "budget", "epochs", "iterations_per_epoch")},
        "iterations": round(facts["epochs"] * facts["iterations_per_epoch"] * facts["budget"]),
        "dice": row["dice"],
        "runtime_seconds": row["runtime_hours"] * _SECONDS_PER_HOUR,
        "co2_kg": row["co2_kg"],
        "voxel_share": row["voxels_percent"] / 100,
        "n_folds": folds,
        "folds": " ".join(map(str, range(folds))),
        "hardware": facts["hardware"],
        "studies": published(name),
        "trial_ids": "",
        "summary": METHOD_LABELS[row["method"]],
    }


def _facts(name: str) -> dict[str, Any]:
    return tomllib.loads(_text(name, "source.toml"))


def _text(name: str, file: str) -> str:
    _check(name, REFERENCES)
    return (files("analysis.comparison") / name / file).read_text(encoding="utf-8")


def _check(name: str, legal: Sequence[str]) -> None:
    if name not in legal:
        raise InvalidInputError(field="reference", received=name, legal=f"one of {', '.join(legal)}")


# Quantities of claims.csv in words; those in per cent, and the count.
_WORDS = {
    "runtime_ratio": "runtime",
    "voxel_ratio": "voxels",
    "co2_ratio": "CO₂",
    "dice_gain_where_higher": "gain of Dice where higher",
    "dice_loss_where_lower": "loss of Dice where lower",
    "tasks_higher": "tasks with a higher Dice",
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A number of the text beside what its table gives.

    Attributes:
        method: scheme; quantity: in words.
        printed: as in the text.
        computed: from the table, with as many decimals.
    """

    method: str
    quantity: str
    printed: str
    computed: str

    @property
    def holds(self) -> bool:
        """Whether the text's number follows from the table, to its last digit."""
        return self.printed == self.computed


def check_claims(name: str) -> list[Claim]:
    """Every claim of a publication about its Table 1, computed again.

    Raises:
        InvalidInputError: an unknown name.
    """
    stated = claims_of(name)
    summary = compare(load(name), against=list(dict.fromkeys(stated["method"]))).summary
    computed = {row["against"]: row for _, row in summary.iterrows()}
    return [_claim(row, computed[METHOD_LABELS[row["method"]]]) for _, row in stated.iterrows()]


def contradictions(name: str) -> list[str]:
    """A sentence per claim that does not follow from the table."""
    return [
        f"{name}: the text gives {claim.method} {claim.quantity} {claim.printed}, its Table 1 gives {claim.computed}."
        for claim in check_claims(name)
        if not claim.holds
    ]


def _claim(stated: pd.Series[str], summary: pd.Series[float]) -> Claim:
    quantity, unit = stated["quantity"], stated["unit"]
    if unit:
        values = [f"{_rounded(stated[end], 100 * summary[f'{quantity}_{end}'])} {unit}" for end in ("mean", "sd")]
        printed, computed = f"{stated['mean']} {unit} ± {stated['sd']} {unit}", " ± ".join(values)
    else:
        printed, computed = stated["mean"], str(summary[quantity])
    return Claim(method=METHOD_LABELS[stated["method"]], quantity=_WORDS[quantity], printed=printed, computed=computed)


def _rounded(printed: str, value: float) -> str:
    """A value with as many decimals as the printed one."""
    decimals = len(printed.partition(".")[2])
    return f"{value:.{decimals}f}"
