"""Rankings of small datasets, made whole: known orders, the same bytes with any number of workers, after kills and on a
cluster; its processes, none of which outlives its parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from clusters import Cluster, cluster
from numpy.typing import NDArray
from rankable import FULL, MOVES, NAME, PLANS, SHAPE, anatomy, noisy, phantoms, write_dataset
from studies import USER_ERROR

from study.__main__ import main
from study.common import files
from study.common.errors import InvalidInputError, MachineError, MissingDataError
from study.curriculum.data_curriculum import METRICS
from study.nnunet.datasets import PreparedDataset, data_paths, find_dataset
from study.ranking.files import PAIRS, RECORD, TABLE, read_table
from study.ranking.make import Made, RankingSettings, make_ranking
from study.ranking.work import run_all
from study.store.locks import held

Array = NDArray[np.float32]
REPOSITORY = Path(__file__).resolve().parent.parent


def settings(**changes: str) -> RankingSettings:
    return RankingSettings(plans=PLANS, configuration=FULL, **changes)


def content(made: Made) -> dict[str, bytes]:
    return {name: (made.folder / name).read_bytes() for name in (TABLE, PAIRS, RECORD)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the phantoms; rankings go elsewhere."""
    folder = tmp_path_factory.mktemp("rankable")
    write_dataset(folder, phantoms(), {"held_out": anatomy(seed=3)})
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> PreparedDataset:
    return find_dataset(data_paths(root), NAME)


@pytest.fixture(scope="module")
def made(dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The ranking by the default settings, with one worker."""
    return make_ranking(dataset, 0, settings(), rankings=tmp_path_factory.mktemp("rankings"))


def registrations(made: Made) -> dict[str, str]:
    return {row.case: row.registration for row in made.ranking.of("mse")}


@pytest.mark.parametrize("metric", METRICS)
def test_the_other_anatomy_is_the_most_dissimilar(made: Made, metric: str) -> None:
    order = made.ranking.most_dissimilar(metric)
    assert order[0] == "stranger"
    assert sorted(order) == sorted(phantoms())


def test_the_reference_is_most_similar_to_itself(dataset: PreparedDataset, tmp_path: Path) -> None:
    done = make_ranking(dataset, 0, settings(compare="reference", reference="case0"), rankings=tmp_path)
    for metric in METRICS:
        order = done.ranking.most_dissimilar(metric)
        assert (order[0], order[-1]) == ("stranger", "case0")
    assert len(read_table(done.folder / PAIRS)) == len(phantoms())


def test_moved_copies_are_brought_together(made: Made, dataset: PreparedDataset, tmp_path: Path) -> None:
    unmoved = make_ranking(dataset, 0, settings(transform="none", reference="case0"), rankings=tmp_path)
    found = registrations(made)
    reference = made.record["layout"]["reference"]
    assert reference in MOVES
    assert found[reference] == "reference"
    assert all(found[case] == "registered" for case in MOVES if case != reference)
    errors, errors_before = (
        {(p["first"], p["second"]): p["mse"] for p in read_table(each.folder / PAIRS)} for each in (made, unmoved)
    )
    for pair, error in errors.items():
        if "stranger" not in pair:
            # Each copy has noise of variance 0.01.
            assert error < 0.06
            assert errors_before[pair] > 2 * error


def test_the_record_says_what_was_done(made: Made, dataset: PreparedDataset) -> None:
    record = made.record
    assert record["settings"] == {
        "plans": PLANS,
        "configuration": FULL,
        "transform": "rigid",
        "reference": "medoid",
        "compare": "others",
    }
    assert record["cases"] == sorted(phantoms())
    assert record["split_sha256"] == dataset.split(0).sha256
    assert set(record["versions"]) == {"numpy", "pyarrow", "scikit-image", "scipy", "SimpleITK"}
    assert not (made.folder / "work").exists()


def test_what_cannot_be_registered_is_ranked_and_listed(tmp_path: Path) -> None:
    strange = {
        "constant": np.full(SHAPE, 1.0, dtype=np.float32),
        "empty": np.full(SHAPE, np.nan, dtype=np.float32),
        "slice": noisy(anatomy(), 11)[12:13],
    }
    dataset = write_dataset(tmp_path, {**phantoms(), **strange})
    done = make_ranking(dataset, 0, settings())
    found = registrations(done)
    assert [case for case, how in sorted(found.items()) if how == "unregistered"] == sorted(strange)
    rows = {(row.case, row.metric): row for row in done.ranking.rows}
    assert rows["empty", "mse"].rank == len(found)
    assert all(rows["empty", metric].value is None for metric in METRICS)
    assert rows["empty", "mse"].reason == "it is constant; mse undefined: no overlap with what it is compared to"
    # A slice has intensities and no 3D structure; what is constant has no noise to be unlike in.
    assert rows["slice", "mse"].value is not None
    assert "holds no window" in rows["slice", "ssim"].reason
    assert rows["constant", "mse"].value is not None
    assert rows["stranger", "mse"].rank < rows["case0", "mse"].rank


def test_images_of_one_slice_are_ranked_in_two_dimensions(tmp_path: Path) -> None:
    flat = {case: voxels[None] for case, voxels in _flat_phantoms().items()}
    done = make_ranking(write_dataset(tmp_path, flat), 0, settings())
    assert done.record["layout"]["dropped_axes"] == [0]
    for metric in METRICS:
        assert done.ranking.most_dissimilar(metric)[0] == "stranger"
    assert registrations(done)["copy2"] in {"registered", "reference"}


def _flat_phantoms() -> dict[str, Array]:
    plane = anatomy((40, 44), seed=2)
    copies = {f"copy{i}": noisy(np.roll(plane, (i, -i), axis=(0, 1)), i) for i in range(3)}
    return {**copies, "stranger": noisy(anatomy((40, 44), seed=5), 8)}


def test_channels_are_ranked_together(tmp_path: Path) -> None:
    cases = {case: np.stack([voxels, -voxels]) for case, voxels in phantoms().items()}
    done = make_ranking(write_dataset(tmp_path, cases), 0, settings(transform="none"))
    assert len(done.record["layout"]["data_ranges"]) == 2
    assert done.ranking.most_dissimilar("mse")[0] == "stranger"


def test_the_number_of_workers_changes_nothing(made: Made, dataset: PreparedDataset, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    again = make_ranking(
        dataset, 0, settings(), workers=3, rankings=tmp_path, report=lambda *progress: seen.append(progress)
    )
    assert not again.already_done
    assert content(again) == content(made)
    for step in ("looking at cases", "registering cases", "comparing cases"):
        *_, (_, done, total) = [progress for progress in seen if progress[0] == step]
        assert done == total > 0


SCRIPT = """
import sys
from pathlib import Path
from study.nnunet.datasets import data_paths, find_dataset
from study.ranking.make import RankingSettings, make_ranking

if __name__ == "__main__":
    dataset = find_dataset(data_paths(Path(sys.argv[1])), sys.argv[2])
    settings = RankingSettings(plans="nnUNetPlans", configuration="3d_fullres")
    aligned = Path(sys.argv[3], sys.argv[2], "fold_0", "work", "aligned")

    def halt(*_):
        if len(list(aligned.glob("[!.]*.pkl"))) >= 2:
            print("halted", flush=True)
            sys.stdin.read()

    make_ranking(dataset, 0, settings, workers=int(sys.argv[4]), rankings=Path(sys.argv[3]), report=halt)
"""


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.cluster), 2])
def test_a_killed_ranking_goes_on_where_it_was(made: Made, root: Path, tmp_path: Path, workers: int) -> None:
    script = tmp_path / "rank.py"
    script.write_text(SCRIPT)
    rankings = tmp_path / "rankings"
    aligned = rankings / NAME / "fold_0" / "work" / "aligned"
    words = [sys.executable, str(script), str(root), NAME, str(rankings), str(workers)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen(words, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"halted\n"
        others = psutil.Process(one.pid).children(recursive=True)
        os.kill(one.pid, signal.SIGKILL)
    # They end with their parent; until then they may write.
    assert not psutil.wait_procs(others, timeout=600)[1]
    kept = {path.name: path.stat().st_mtime_ns for path in aligned.glob("[!.]*.pkl")}
    assert len(kept) >= 2
    said: list[str] = []
    looked: list[dict[str, int]] = []

    def look(step: str, *_: int) -> None:
        if step == "comparing cases":
            looked.append({path.name: path.stat().st_mtime_ns for path in aligned.glob("[!.]*.pkl")})

    dataset = find_dataset(data_paths(root), NAME)
    again = make_ranking(dataset, 0, settings(), rankings=rankings, report=look, say=said.append)
    assert "going on with an interrupted ranking" in said
    assert kept.items() <= looked[0].items()
    assert content(again) == content(made)


def test_work_of_other_settings_is_not_taken_over(made: Made, dataset: PreparedDataset, tmp_path: Path) -> None:
    files.write_json(tmp_path / NAME / "fold_0" / "work" / "identity.json", {"format": 0})
    (tmp_path / NAME / "fold_0" / "work" / "surveys").mkdir()
    (tmp_path / NAME / "fold_0" / "work" / "surveys" / "case0.pkl").write_bytes(b"nonsense")
    said: list[str] = []
    again = make_ranking(dataset, 0, settings(), rankings=tmp_path, say=said.append)
    assert said[0] == "what an interrupted ranking with other settings left is removed"
    assert content(again) == content(made)


def test_validation_cases_are_never_opened(made: Made, root: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    dataset = find_dataset(data_paths(copy), NAME)
    cases = dataset.folder / f"{PLANS}_{FULL}"
    for path in cases.glob("held_out*"):
        path.write_bytes(b"nobody reads this")
    again = make_ranking(dataset, 0, settings())
    assert content(again) == content(made)
    assert "held_out" not in {row.case for row in again.ranking.rows}


def test_one_training_case_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, {"alone": anatomy()}, {"held_out": anatomy()})
    with pytest.raises(InvalidInputError, match="training cases of fold 0: received 1, legal is at least 2"):
        make_ranking(dataset, 0, settings())


def test_a_ranking_by_other_settings_is_kept(made: Made, dataset: PreparedDataset) -> None:
    before = content(made)
    with pytest.raises(InvalidInputError, match="received 'transform affine', legal is transform rigid of the ranking"):
        make_ranking(dataset, 0, settings(transform="affine"), rankings=made.folder.parent.parent)
    assert content(made) == before


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda cases: (cases / "case2.b2nd").write_bytes(b"not an image"), r"case case2 in .* cannot be read"),
        (lambda cases: (cases / "case1.pkl").unlink(), r"1 files of .* are missing, the first is .*case1.pkl"),
    ],
)
def test_a_case_that_is_not_there_or_cannot_be_read_is_named(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    dataset = write_dataset(tmp_path, phantoms())
    harm(dataset.folder / f"{PLANS}_{FULL}")
    with pytest.raises(MissingDataError, match=message):
        make_ranking(dataset, 0, settings())


def test_two_at_once_are_refused(dataset: PreparedDataset, tmp_path: Path) -> None:
    with held(tmp_path / NAME / "fold_0" / ".lock"), pytest.raises(MachineError, match="is being ranked by process"):
        make_ranking(dataset, 0, settings(), rankings=tmp_path)


def touch(folder: Path, name: str) -> None:
    (folder / name).touch()


def fail_at(bad: str, name: str) -> None:
    if name == bad:
        raise MissingDataError(f"{name} is missing")


def die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("items", "workers"), [(7, 1), (7, 3), (0, 4)])
def test_every_item_is_done_and_counted(tmp_path: Path, items: int, workers: int) -> None:
    names, counts = [f"item{index}" for index in range(items)], list[int]()
    run_all(partial(touch, tmp_path), names, counts.append, workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert counts == list(range(items + 1))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives_as_it_was(workers: int) -> None:
    with pytest.raises(MissingDataError, match=r"^b is missing$"):
        run_all(partial(fail_at, "b"), ["a", "b", "c"], lambda _: None, workers=workers)


def test_a_dead_process_is_told() -> None:
    with pytest.raises(MachineError, match=r"a ranking process died, .* the same command goes on from here"):
        run_all(die, ["a", "b"], lambda _: None, workers=2)


SLEEPING = """
import time
from study.ranking.work import run_all

if __name__ == "__main__":
    try:
        run_all(time.sleep, [300.0, 300.0], lambda _: print("looking", flush=True), workers=2)
    except KeyboardInterrupt:
        raise SystemExit(130)
"""


@pytest.mark.parametrize("how", ["killed", "Ctrl-C while they start"])
def test_no_process_outlives_its_parent_or_complains(tmp_path: Path, how: str) -> None:
    script = tmp_path / "sleep.py"
    script.write_text(SLEEPING)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as process:
        assert process.stdout.readline()
        workers: list[psutil.Process] = []
        while len(workers) < 3:  # two that sleep, and what looks after their files
            workers = psutil.Process(process.pid).children(recursive=True)
        if how == "killed":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=600)
        assert (process.returncode, errors) == ((-signal.SIGKILL, errors) if how == "killed" else (130, b""))
        assert psutil.wait_procs(workers, timeout=600)[1] == []


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
