"""Rankings on disk whose order a test decides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from study.common import files
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset
from study.ranking.files import FORMAT, RECORD, RankedCase, fold_folder, rows_sha256, write_pairs, write_rows


def by_name(dataset: PreparedDataset, fold: int = 0) -> list[str]:
    """The fold's training cases, the last in the alphabet first."""
    return sorted(dataset.split(fold).training, reverse=True)


def write_ranking(dataset: PreparedDataset, fold: int = 0, ranked: Sequence[str] | None = None) -> Path:
    """A ranking of a fold by every metric.

    Args:
        dataset: beside whose data it is written.
        fold: whose training cases are ranked.
        ranked: them, most dissimilar first; `by_name` unless given. By SSIM they are the other way round.
    """
    order = list(ranked or by_name(dataset, fold))
    rows = [
        RankedCase(case=case, metric=metric, value=rank / 10, rank=rank, registration="identity", reason="")
        for metric in METRICS
        for rank, case in enumerate(order[::-1] if metric == "ssim" else order, start=1)
    ]
    folder = fold_folder(dataset, fold)
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows)
    write_pairs(folder, [])
    record = {"format": FORMAT, "dataset": dataset.name, "fold": fold, "split_sha256": dataset.split(fold).sha256}
    files.write_json(folder / RECORD, {**record, "sha256": rows_sha256(rows)})
    return folder
