"""Specifications with a data curriculum or a Dice to stop at: identities, rankings, search spaces, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import BRAIN, make_spec
from rankable import by_name, write_ranking
from raw_data import BARE as DATASET
from raw_data import bare_dataset

from study.common.errors import InvalidInputError, LedgerError, MissingDataError
from study.curriculum.curriculum import foreground_volumes, resolve
from study.curriculum.data_curriculum import DataCurriculum
from study.curriculum.schemes import named_axes
from study.nnunet.datasets import DataPaths, PreparedDataset, find_dataset
from study.run.provenance import Provenance, check_provenance
from study.search.document import space_from
from study.search.trials import check_data, prepared_lookup, ranked_cases, specs
from study.search.trials import make_spec as specify
from study.store.ledger import Ledger
from study.store.specification import TrainingSettings, TrialSpec

LENGTH = {"epochs": 10, "iterations_per_epoch": 50}
FIRST = DataCurriculum(cases=("a", "b"), until_iteration=250)


# As the version before the data curriculum named them.
NAMES_BEFORE = {
    "cps": "2f0cf88093b8",
    "pgps": "21727d3cebb6",
    "pgps+": "f1eeba0178bb",
    "rpss": "fa6f275b35a8",
    "efficiency": "21727d3cebb6",
    "performance": "d4501fb1f1a4",
}
SEARCHED: dict[str, Any] = {"min_patch": 0.4, "stages": 3, "batch_growth": 0.5, "budget": 0.25}
SEARCHED_NAME = "59bfad7f5ed1"


@pytest.mark.parametrize("scheme", NAMES_BEFORE)
def test_a_trial_on_all_cases_keeps_the_name_it_had(scheme: str) -> None:
    # The follow-up's schemes began one stage later then.
    spec = make_spec(scheme, seed=3 if scheme == "rpss" else 0, chain_start="trainable")
    assert spec.trial_id == NAMES_BEFORE[scheme]


def stored_before(spec: TrialSpec) -> TrialSpec:
    """The specification as a version without chain starts and volume rules stored and would now be read."""
    stored = json.loads(json.dumps(spec.to_json()))
    del stored["axes"]["chain_start"], stored["curriculum"]["volume_rule"]
    return TrialSpec.from_json(stored)


@pytest.mark.parametrize("batch_size", range(1, 13))
@pytest.mark.parametrize("share", [None, 0.25, 1.0])
def test_a_stored_trial_of_several_crops_keeps_its_rule_and_a_new_one_its_name_where_nothing_changed(
    batch_size: int, share: float | None
) -> None:
    geometry = replace(BRAIN, batch_size=batch_size)
    axes = named_axes("performance", chain_start="trainable")
    curriculum = resolve(geometry, axes, epochs=10, iterations_per_epoch=250)
    training = TrainingSettings(epochs=10, foreground_oversampling=share).resolved(constant_patch_size=False)
    spec = replace(make_spec("performance"), axes=axes, curriculum=curriculum, training=training)
    before = stored_before(spec)
    assert before.axes == axes
    assert before.curriculum.volume_rule == "rounded"
    kinds = [
        [
            foreground_volumes(which.curriculum.volume_rule, stage.volumes, training.foreground_oversampling or 0)
            for stage in curriculum.stages
            if stage.crops_per_volume > 1
        ]
        for which in (spec, before)
    ]
    assert (before.trial_id == spec.trial_id) is (kinds[0] == kinds[1])
    assert "volume_rule" not in before.identity()["curriculum"]
    assert stored_before(before) == before


def test_a_specification_without_the_new_keys_is_read_and_keeps_its_name() -> None:
    training = {"optimizer": "adamw", "epochs": 4, "iterations_per_epoch": 60}
    spec = make_spec("pgps", training=training, **SEARCHED)
    stored = json.loads(json.dumps(spec.to_json()))
    for part, names in ((stored["axes"], ("pdl_fraction", "pdl_epochs", "pdl_metric")), (stored, ("data",))):
        for name in names:
            del part[name]
    del stored["training"]["stop_at_dice"]
    assert TrialSpec.from_json(stored) == spec
    assert TrialSpec.from_json(stored).trial_id == SEARCHED_NAME


def test_what_the_new_keys_decide_is_part_of_the_identity() -> None:
    spec = make_spec("pgps")
    others = [
        replace(spec, data=FIRST),
        replace(spec, data=replace(FIRST, cases=("a", "c"))),
        replace(spec, data=replace(FIRST, until_iteration=500)),
        make_spec("pgps", training={"stop_at_dice": 0.9}),
        make_spec("pgps", training={"stop_at_dice": 0.8}),
        make_spec("cps"),
        replace(make_spec("cps"), data=FIRST),
    ]
    assert len({spec.trial_id, *(other.trial_id for other in others)}) == 1 + len(others)
    for other in others:
        again = TrialSpec.from_json(json.loads(json.dumps(other.to_json())))
        assert (again, again.trial_id) == (other, other.trial_id)


@pytest.fixture
def prepared(tmp_path: Path) -> DataPaths:
    """Ten cases, eight of which each fold trains on; no ranking."""
    return bare_dataset(tmp_path)


@pytest.fixture
def dataset(prepared: DataPaths) -> PreparedDataset:
    return find_dataset(prepared, DATASET)


def spec_on(prepared: DataPaths, scheme: str = "cps", *, fold: int = 0, **axes: Any) -> TrialSpec:
    lookup, point = prepared_lookup(prepared), named_axes(scheme, **axes)
    plan, split_sha256 = lookup(4, None, "3d_fullres", fold)
    return specify(
        plan=plan,
        split_sha256=split_sha256,
        fold=fold,
        seed=0,
        scheme=scheme,
        axes=point,
        training=TrainingSettings(**LENGTH),  # type: ignore[arg-type]
        ranked=ranked_cases(lookup, 4, fold, point),
    )


def test_a_point_becomes_the_top_of_its_folds_ranking(prepared: DataPaths, dataset: PreparedDataset) -> None:
    for fold, cases in ((0, ("case_6", "case_7", "case_8", "case_9")), (1, ("case_5", "case_7", "case_8", "case_9"))):
        write_ranking(dataset, fold)
        made = spec_on(prepared, fold=fold, pdl_fraction=0.5, pdl_epochs=0.3, budget=0.5)
        assert made.data == DataCurriculum(cases=cases, until_iteration=75)
    assert spec_on(prepared, pdl_fraction=0.25, pdl_metric="ssim").data == DataCurriculum(
        cases=("case_1", "case_2"), until_iteration=150
    )


def test_points_with_the_same_cases_and_table_are_the_same_trial(prepared: DataPaths, dataset: PreparedDataset) -> None:
    write_ranking(dataset)
    one = spec_on(prepared, pdl_fraction=0.25, pdl_epochs=0.3)
    assert one.trial_id == spec_on(prepared, "pgps", min_patch=1.0, pdl_fraction=0.26, pdl_epochs=3).trial_id
    assert one.trial_id == spec_on(prepared, pdl_fraction=0.25, pdl_epochs=3, pdl_metric="mse").trial_id
    assert one.trial_id != spec_on(prepared, pdl_fraction=0.25, pdl_epochs=3, pdl_metric="ssim").trial_id
    whole = spec_on(prepared)
    assert whole.data is None
    for fraction in (0.0, 0.95, 1.0):
        assert spec_on(prepared, pdl_fraction=fraction, pdl_epochs=3).trial_id == whole.trial_id

    # Constant patches keep their oversampling.
    made = [spec_on(prepared, scheme, pdl_fraction=0.5) for scheme in ("cps", "pgps")]
    assert [spec.training.foreground_oversampling for spec in made] == [0.33, 0.5]


def test_without_a_ranking_of_the_split_the_command_that_makes_it_is_named(
    prepared: DataPaths, dataset: PreparedDataset
) -> None:
    with pytest.raises(MissingDataError, match="python -m study rank --dataset 4 --fold 1"):
        spec_on(prepared, fold=1, pdl_fraction=0.5)
    write_ranking(dataset)
    path = dataset.folder / "splits_final.json"
    split = json.loads(path.read_text())
    path.write_text(json.dumps([{**split[0], "train": split[0]["train"][1:]}, *split[1:]]))
    with pytest.raises(InvalidInputError, match=r"ranking: received .another split"):
        spec_on(prepared, pdl_fraction=0.5)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        (
            {"pdl_fraction": 0.05},
            "pdl_fraction: received 0.05, legal is 0, or at least 0.0625: less leaves no case of 8",
        ),
        ({"pdl_fraction": 0.5, "pdl_epochs": 11}, "pdl_epochs: received 11, legal is at most the 10 epochs"),
    ],
)
def test_impossible_phases_are_refused(
    prepared: DataPaths, dataset: PreparedDataset, axes: dict[str, Any], words: str
) -> None:
    write_ranking(dataset)
    with pytest.raises(InvalidInputError, match=words):
        spec_on(prepared, **axes)


def test_a_phase_is_never_left_out_in_silence(prepared: DataPaths) -> None:
    plan, split_sha256 = prepared_lookup(prepared)(4, None, "3d_fullres", 0)
    axes = named_axes("cps", pdl_fraction=0.5)
    with pytest.raises(InvalidInputError, match=r"pdl_fraction: received 0\.5, legal is 0 where no ranking"):
        specify(
            plan=plan, split_sha256=split_sha256, fold=0, seed=0, scheme="cps", axes=axes, training=TrainingSettings()
        )
    with pytest.raises(InvalidInputError, match="legal is 0 where no ranking"):
        ranked_cases(lambda *_: (plan, split_sha256), 4, 0, axes)


def space_of(curriculum: dict[str, Any], **keys: Any) -> Any:
    document = {"name": "pdl", "searcher": "grid", "datasets": [4], "training": LENGTH, "curriculum": curriculum}
    return space_from({**document, **keys})


def test_a_grid_of_both_curricula(prepared: DataPaths, dataset: PreparedDataset) -> None:
    write_ranking(dataset)
    space = space_of({"scheme": ["cps", "pgps"], "pdl_fraction": [0, 0.5], "pdl_epochs": [3, 0.5]})
    check_data(space, prepared_lookup(prepared))
    made = [specs(space, point, prepared_lookup(prepared))[0] for point in space.points()]
    assert len(made) == 8
    assert len({spec.trial_id for spec in made}) == 6
    found = {(spec.scheme, spec.data and (len(spec.data.cases), spec.data.until_iteration)) for spec in made}
    assert found == {(scheme, data) for scheme in ("cps", "pgps") for data in (None, (4, 150), (4, 250))}


def test_missing_rankings_are_known_before_anything_starts(prepared: DataPaths, dataset: PreparedDataset) -> None:
    write_ranking(dataset, 0)
    space = space_of({"pdl_fraction": [0, 0.5]}, folds=[0, 2])
    with pytest.raises(MissingDataError, match="rank --dataset 4 --fold 2"):
        check_data(space, prepared_lookup(prepared))
    check_data(space_of({"pdl_fraction": [0, 1]}, folds=[0, 2]), prepared_lookup(prepared))
    with pytest.raises(InvalidInputError, match="less leaves no case of 8"):
        check_data(space_of({"pdl_fraction": [0.02, 0.5]}), prepared_lookup(prepared))


@pytest.mark.parametrize(
    ("curriculum", "searcher", "words"),
    [
        ({"pdl_fraction": [0, 2]}, "grid", "curriculum.pdl_fraction: received 2, legal is a number from 0 to 1"),
        (
            {"pdl_fraction": 0.5, "pdl_epochs": [3, 11]},
            "grid",
            "pdl_epochs: received 11, legal is at most the 10 epochs",
        ),
        ({"pdl_epochs": {"uniform": [0.5, 2]}}, "random", r"curriculum.pdl_epochs: received {'uniform': \[0.5, 2.0\]}"),
        ({"pdl_metric": "dice"}, "grid", "curriculum.pdl_metric: received 'dice', legal is one of mse, psnr"),
        ({"pdl_fraction": {"uniform": [0, 0.5]}}, "random", "an interval that starts above 0, or a list"),
        ({"pdl_faction": 0.5}, "grid", "did you mean 'pdl_fraction'"),
    ],
)
def test_bad_spaces_are_refused(curriculum: dict[str, Any], searcher: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        space_of(curriculum, searcher=searcher, trials=3)


def test_idle_keys_are_not_checked_and_a_dice_to_stop_at_is_a_setting_like_others() -> None:
    assert len(list(space_of({"pdl_fraction": [0, 1], "pdl_epochs": 11}).points())) == 2
    space = space_of({}, training={**LENGTH, "stop_at_dice": [0.8, 0.9]})
    assert [space.settings(point).training.stop_at_dice for point in space.points()] == [0.8, 0.9]
    fixed = space.with_overrides(stop_at_dice=0.7)
    assert [fixed.settings(point).training.stop_at_dice for point in fixed.points()] == [0.7]
    with pytest.raises(InvalidInputError, match=r"training\.stop_at_dice: received 1\.5"):
        space.with_overrides(stop_at_dice=1.5)


def test_a_study_rests_on_its_rankings(prepared: DataPaths, dataset: PreparedDataset, tmp_path: Path) -> None:
    write_ranking(dataset)
    space = space_of({"pdl_fraction": [0, 0.5]})
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    check_provenance(ledger, space, prepared, Provenance.here(space, prepared))
    assert list(ledger.header()["provenance"]["rankings"]) == [f"{DATASET}/fold_0"]
    check_provenance(ledger, space, prepared, Provenance.here(space, prepared))
    write_ranking(dataset, ranked=sorted(by_name(dataset)))
    with pytest.raises(LedgerError, match=f"ranking of the training cases of {DATASET}/fold_0"):
        check_provenance(ledger, space, prepared, Provenance.here(space, prepared))


def test_a_study_on_all_cases_needs_none_and_old_ones_go_on(prepared: DataPaths, tmp_path: Path) -> None:
    space = space_of({"scheme": ["cps", "pgps"]})
    here = Provenance.here(space, prepared)
    assert here.rankings == {}
    before = here.to_json()
    del before["rankings"]
    assert here.differences(before) == []
