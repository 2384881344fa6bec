"""A ranking on disk: `rankings/fold_K` of a prepared dataset, written by `python -m study rank`, read by trials.

    ranking.parquet   one row per case and metric: value, rank (1 is most dissimilar), registration outcome, reason
    pairs.parquet     the values of every comparison that was made
    ranking.json      settings, reference, cases, data range, versions, SHA-256 of the rows
    ranking.png       the picture

`ranking.json` is written last: where it is, the ranking is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError, check_choice
from study.common.serialize import sha256_of_json
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, dataset_id

MEASURES = ("mse", "psnr", "ssim", "uqi")
MEAN_RANK = "mean-rank"
"""Measures of similarity. `METRICS` has these and `mean-rank`, the mean of the ranks by MSE, SSIM and UQI."""

FOLDER = "rankings"
TABLE, PAIRS, RECORD, PICTURE = "ranking.parquet", "pairs.parquet", "ranking.json", "ranking.png"
# Of the files and the arithmetic: raise it when either changes. Older rankings can be read and are not made again.
FORMAT, READABLE_FORMATS = 2, (1, 2)

Values = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class RankedCase:
    """One row of a ranking.

    Attributes:
        case: nnU-Net's identifier; metric: one of `METRICS`.
        value: of the metric, None where it is undefined.
        rank: 1 is most dissimilar; undefined values come last, ties in the order of names.
        registration: `reference`, `registered`, `identity` or `unregistered`.
        reason: why it is not registered, or why a value is undefined; empty otherwise.
    """

    case: str
    metric: str
    value: float | None
    rank: int
    registration: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CasePair:
    """One comparison.

    Attributes:
        first, second: cases; where all are compared with the reference, that is the second.
        values: measure -> value, None where undefined; reasons: measure -> why.
    """

    first: str
    second: str
    values: Values
    reasons: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The training cases of one fold in the order of their dissimilarity.

    Attributes:
        dataset: nnU-Net's name; fold: whose training cases are ranked.
        split_sha256: `Split.sha256` of the fold.
        sha256: of the rows, so of everything a trial takes from the ranking.
        rows: one per case and metric.
    """

    dataset: str
    fold: int
    split_sha256: str
    sha256: str
    rows: tuple[RankedCase, ...]

    def most_dissimilar(self, metric: str) -> tuple[str, ...]:
        """All training cases, the most dissimilar first, ties in the order of names.

        Raises:
            InvalidInputError: no such metric.
        """
        check_choice("metric", metric, METRICS)
        return tuple(row.case for row in self.of(metric))

    def of(self, metric: str) -> list[RankedCase]:
        """The rows of one metric in the order of their ranks."""
        return sorted((row for row in self.rows if row.metric == metric), key=lambda row: row.rank)


def load_ranking(dataset: PreparedDataset, fold: int, *, rankings: Path | None = None) -> Ranking:
    """The ranking of a fold's training cases.

    Args:
        dataset: the prepared dataset.
        fold: of its splits_final.json.
        rankings: the folder given to `rank --out`; that beside the preprocessed data unless given.

    Raises:
        MissingDataError: there is none, or it is damaged.
        InvalidInputError: it was made for another dataset, fold or split, or the dataset has no such fold.
    """
    split = dataset.split(fold)
    folder = fold_folder(dataset, fold, rankings)
    command = f"python -m study rank --dataset {dataset_id(dataset.name)} --fold {fold}"
    record = read_record(folder)
    if record is None:
        raise MissingDataError(f"no ranking in {folder}; `{command}` makes it")

    def of_another(received: str, legal: str) -> InvalidInputError:
        remedy = f"remove {folder}, then `{command}`"
        return InvalidInputError(field="ranking", received=received, legal=f"one of {legal}", remedy=remedy)

    if (record.get("dataset"), record.get("fold")) != (dataset.name, fold):
        raise of_another(f"{record.get('dataset')} fold {record.get('fold')}", f"{dataset.name} fold {fold}")
    if record.get("split_sha256") != split.sha256:
        raise of_another("another split of the cases", "the split in splits_final.json")
    try:
        rows = read_rows(folder)
    except (OSError, ValueError, TypeError):
        rows = ()
    if rows_sha256(rows) != record.get("sha256"):
        what = f"the ranking in {folder} is damaged: {TABLE} is not what {RECORD} says"
        raise MissingDataError(f"{what}; remove the folder, then `{command}`")
    ranking = Ranking(dataset=dataset.name, fold=fold, split_sha256=split.sha256, sha256=record["sha256"], rows=rows)
    if sorted(ranking.most_dissimilar(MEAN_RANK)) != sorted(split.training):
        raise of_another("other cases", "the training cases of the fold")
    return ranking


def fold_folder(dataset: PreparedDataset, fold: int, rankings: Path | None = None) -> Path:
    """Where the ranking of a fold is, or belongs; `rankings` is a folder for those of several datasets."""
    return (dataset.folder / FOLDER if rankings is None else rankings / dataset.name) / f"fold_{fold}"


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `ranking.json` of a fold's folder holds; None where there is no complete ranking of this layout."""
    try:
        record = files.read_json(folder / RECORD)
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and record.get("format") in READABLE_FORMATS
    return record if whole and (folder / TABLE).exists() and (folder / PAIRS).exists() else None


def rows_sha256(rows: Sequence[RankedCase]) -> str:
    """SHA-256 of the rows' content, whatever wrote them."""
    return sha256_of_json([asdict(row) for row in rows])


def write_rows(folder: Path, rows: Sequence[RankedCase]) -> None:
    """Write a ranking's rows; the same ones give the same bytes."""
    columns = {"case": "string", "metric": "string", "value": "float64", "rank": "int64"}
    columns |= {"registration": "string", "reason": "string"}
    _write_table(folder / TABLE, [asdict(row) for row in rows], columns)


def write_pairs(folder: Path, pairs: Sequence[CasePair]) -> None:
    """Write the comparisons that a ranking rests on; see `write_rows`."""
    columns = {"first": "string", "second": "string", **dict.fromkeys(MEASURES, "float64")}
    _write_table(folder / PAIRS, [{"first": p.first, "second": p.second, **p.values} for p in pairs], columns)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a parquet file; raises OSError or ValueError when it is missing or damaged."""
    import pyarrow.parquet

    # Read at once: a path would be taken for one part of a dataset, whose other parts are looked for beside it.
    with path.open("rb") as handle:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(handle).to_pylist()
    return rows


def read_rows(folder: Path) -> tuple[RankedCase, ...]:
    """The rows of a complete ranking; see `read_table` for errors, or TypeError for other columns."""
    return tuple(RankedCase(**row) for row in read_table(folder / TABLE))


def _write_table(path: Path, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
    import pyarrow
    import pyarrow.parquet

    # With types that do not depend on the values, which may all be undefined.
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in columns.items()])
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    files.write_atomically(path, lambda handle: pyarrow.parquet.write_table(table, handle))
