"""A ranking on a Ray cluster: the very one that processes of this machine make; what cannot be done is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clusters import Cluster, cluster
from rankable import NAME, SHAPE, anatomy, noisy, write_dataset
from studies import USER_ERROR

from study.__main__ import main

REPOSITORY = Path(__file__).resolve().parent.parent


def rank_on(ray: Cluster, root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "study", "rank", "--data", str(root), "--dataset", "902", "--address", ray.address]
    return subprocess.run(
        [*command, *words],
        env=ray.environment(),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.torture
def test_a_cluster_makes_the_same_ranking_and_hands_errors_on(tmp_path: Path) -> None:
    cases = {f"case{index}": noisy(anatomy(), index) for index in range(4)}
    write_dataset(tmp_path / "data", {**cases, "zero": np.zeros(SHAPE, dtype=np.float32)}, {"out": anatomy(seed=3)})
    with cluster() as ray:
        made = rank_on(ray, tmp_path / "data")
        assert made.returncode == 0, made.stderr
        broken = next((tmp_path / "data" / "nnUNet_preprocessed" / NAME).rglob("case2.b2nd"))
        broken.write_bytes(b"")
        refused = rank_on(ray, tmp_path / "data", "--out", str(tmp_path / "other"), "--transform", "none")
    assert refused.returncode == USER_ERROR
    assert "case2" in refused.stderr
    assert "Traceback" not in refused.stderr
    content = (
        tmp_path / "data" / "nnUNet_preprocessed" / NAME / "rankings" / "fold_0" / "ranking.parquet"
    ).read_bytes()
    write_dataset(tmp_path / "again", {**cases, "zero": np.zeros(SHAPE, dtype=np.float32)}, {"out": anatomy(seed=3)})
    assert main(["rank", "--data", str(tmp_path / "again"), "--dataset", "902", "--workers", "1"]) == 0
    here = tmp_path / "again" / "nnUNet_preprocessed" / NAME / "rankings" / "fold_0" / "ranking.parquet"
    assert here.read_bytes() == content


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path) -> None:
    write_dataset(tmp_path, {"a": anatomy(), "b": anatomy(seed=1)})
    words = ["rank", "--data", str(tmp_path), "--dataset", "902", "--address", "127.0.0.1:1"]
    answer = subprocess.run(
        [sys.executable, "-m", "study", *words], env=dict(os.environ), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert answer.returncode == USER_ERROR
    assert "nothing answers there" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
