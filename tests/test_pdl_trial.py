"""Trials that start on some of the cases: which cases their batches hold, and the same weights however they are run.

All train for real, alone and together with growing and with random patches.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from prepared import CUBE, NAME, NUMBER, MakeTrainer, spec_of, train, workplace
from rankable import by_name, write_ranking
from references import Reference, assert_same_training, kill_and_resume, reference_of, resumed_from
from test_batches import same

from study.__main__ import main
from study.common import files
from study.curriculum.data_curriculum import DataCurriculum
from study.nnunet.batches import Item
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.store.ledger import Ledger

pytestmark = pytest.mark.cluster

# Of 24 iterations in 3 epochs, two epochs on half of the 8 training cases.
HALF: dict[str, Any] = {"pdl_fraction": 0.5, "pdl_epochs": 2}
UNTIL, TOTAL = 16, 24


@pytest.fixture(scope="module")
def paths(data: Path) -> DataPaths:
    return data_paths(data)


def first_cases(paths: DataPaths) -> set[str]:
    """The half that `spec_of` ranks as most dissimilar."""
    return set(by_name(find_dataset(paths, NAME))[:4])


def keys_of(batches: Any, iterations: range) -> Iterator[list[str]]:
    return (batches[Item(index=index)]["keys"] for index in iterations)


@pytest.mark.parametrize("scheme", ["cps", "pgps", "rpss", "performance"])
def test_some_cases_are_drawn_first_and_all_of_them_afterwards(
    make_trainer: MakeTrainer, paths: DataPaths, scheme: str
) -> None:
    trainer = make_trainer(scheme, **HALF)
    batches, first, every = trainer.make_batches(), first_cases(paths), set(trainer.do_split()[0])
    assert len(first) == 4 < len(every) == 8
    assert all(set(keys) <= first for keys in keys_of(batches, range(UNTIL)))
    later = set(chain.from_iterable(keys_of(batches, range(UNTIL, TOTAL))))
    assert later <= every
    assert later - first
    # Back in the first phase, by a loader that has served the second.
    assert all(set(keys) <= first for keys in keys_of(batches, range(UNTIL)))


def test_sampling_within_a_phase_is_uniform_with_replacement(make_trainer: MakeTrainer, paths: DataPaths) -> None:
    trainer = make_trainer("cps", pdl_fraction=0.5, pdl_epochs=2, training={"iterations_per_epoch": 60})
    drawn = list(chain.from_iterable(keys_of(trainer.make_batches(), range(120))))
    counts = {case: drawn.count(case) for case in first_cases(paths)}
    assert sum(counts.values()) == len(drawn) == 240
    # Five standard deviations of a binomial around a quarter.
    assert all(abs(count - 60) < 34 for count in counts.values())
    assert any(len(set(keys)) == 1 for keys in keys_of(trainer.make_batches(), range(30)))


def test_the_second_phase_is_the_training_without_a_first(make_trainer: MakeTrainer) -> None:
    plain, ordered = make_trainer("pgps").make_batches(), make_trainer("pgps", **HALF).make_batches()
    assert all(same(plain[Item(index=index)], ordered[Item(index=index)]) for index in range(UNTIL, TOTAL))
    assert not all(same(plain[Item(index=index)], ordered[Item(index=index)]) for index in range(UNTIL))
    validation = Item(index=1, validation=True)
    assert same(plain[validation], ordered[validation])


@pytest.fixture(scope="module", params=["cps", "pgps", "rpss"])
def reference(request: pytest.FixtureRequest, paths: DataPaths, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return reference_of(spec_of(paths, request.param, **HALF), paths, tmp_path_factory.mktemp("pdl"))


def test_stops_within_at_and_after_the_first_phase_change_nothing(
    reference: Reference, paths: DataPaths, ledger: Ledger
) -> None:
    spec, stops = reference.spec, [5, UNTIL, 20]
    assert spec.data == DataCurriculum(cases=tuple(sorted(first_cases(paths))), until_iteration=UNTIL)
    assert spec.trial_id != spec_of(paths, spec.scheme).trial_id
    for after in stops:
        train(spec, ledger, workplace(paths, data_workers=2), after=after)
    folder = train(spec, ledger, workplace(paths))
    assert resumed_from(folder) == [0, *stops]
    assert_same_training(folder, reference)


def test_kills_within_at_and_after_the_first_phase_change_nothing(
    reference: Reference, paths: DataPaths, ledger: Ledger
) -> None:
    # At the end of the phase its last epoch is reported, and its checkpoint not yet written.
    halts = ({"halt_at": 12}, {"halt_after_epoch": 1}, {"halt_at": 20})
    folder = kill_and_resume(ledger, reference.spec, paths, *halts)
    begun = resumed_from(folder)
    assert (len(begun), begun[0], set(begun) <= {0, 8, UNTIL}) == (1 + len(halts), 0, True)
    assert_same_training(folder, reference)


@pytest.fixture
def ranked_data(data: Path, tmp_path: Path) -> Path:
    """The phantoms under links, with a ranking beside them."""
    folder = tmp_path / "data" / "nnUNet_preprocessed" / NAME
    folder.mkdir(parents=True)
    for path in (data / "nnUNet_preprocessed" / NAME).iterdir():
        (folder / path.name).symlink_to(path)
    write_ranking(find_dataset(data_paths(tmp_path / "data"), NAME))
    return tmp_path / "data"


def words_of(data: Path, out: Path, *more: str) -> list[str]:
    text = (
        f"trial --dataset {NUMBER} --plans {CUBE} --scheme pgps --optimizer adamw --epochs 2 --iterations-per-epoch 4 "
        "--validation-batches 1 --no-mirroring --device cpu --cpus 1 --data-workers 0 --meter none"
    )
    return [*text.split(), "--data", str(data), "--out", str(out), *more]


def test_the_verb_trains_on_the_ranked_cases_first(
    ranked_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(ranked_data, tmp_path / "out", "--pdl-fraction", "0.25", "--pdl-metric", "ssim")
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    spec = Ledger.open(tmp_path / "out").trial(answer["trial_id"]).spec()
    cases = tuple(sorted(by_name(find_dataset(data_paths(ranked_data), NAME))[-2:]))
    assert spec.data == DataCurriculum(cases=cases, until_iteration=4)
    assert (answer["iterations"], answer["stopped_at_iteration"]) == (8, None)
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "data      2 training cases, most dissimilar by ssim, before iteration 4; then all" in printed


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--pdl-fraction 0.01", "less leaves no case of 8"),
        ("--pdl-fraction 0.5 --pdl-epochs 3", "pdl_epochs: received 3, legal is at most the 2 epochs"),
        ("--pdl-fraction 0.5 --fold 1", "python -m study rank --dataset 901 --fold 1"),
        ("--stop-at-dice 0", "stop_at_dice: received 0.0, legal is a number above 0 up to 1"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(
    ranked_data: Path, tmp_path: Path, more: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(ranked_data, tmp_path / "out", *more.split())) != 0
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_the_first_cases(ranked_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = {
        "name": "pdl",
        "searcher": "grid",
        "datasets": [NUMBER],
        "plans": CUBE,
        "curriculum": {"scheme": ["cps", "pgps"], "pdl_fraction": [0, 0.5], "pdl_epochs": 2},
        "training": {"epochs": 4, "iterations_per_epoch": 10},
    }
    files.write_json(tmp_path / "space.yaml", space)
    assert main(["run", str(tmp_path / "space.yaml"), "--data", str(ranked_data), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("data: 4 training cases, most dissimilar by mean-rank, before iteration 20; then all") == 2
    assert "4 trials" in printed
