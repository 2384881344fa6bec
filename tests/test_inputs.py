"""What a result rests on besides its specification: what has changed is refused, what only looks changed is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import finish
from prepared import CUBE, FULL, NAME, cascade_plans, spec_of, workplace
from studies import write_space

from study.common import files
from study.common.errors import DataIntegrityError, LedgerError
from study.common.serialize import sha256_of_json
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.nnunet.identity import (
    EARLIER_CODE,
    changed_inputs,
    deciding_versions,
    description_sha256,
    preprocessed_sizes,
    recorded_versions,
    trial_inputs,
    version_changes,
)
from study.run.provenance import Provenance, check_provenance
from study.run.trial import run_trial
from study.search.document import load_space
from study.search.space import SearchSpace, resolved_space
from study.store.ledger import Ledger

DESCRIPTION: dict[str, Any] = {
    "labels": {"background": 0, "body": 1, "bud": 2},
    "channel_names": {"0": "phantom"},
    "file_ending": ".nii.gz",
    "numTraining": 10,
}
REGIONS: dict[str, Any] = {**DESCRIPTION, "labels": {"background": 0, "whole": [1, 2], "bud": 2}}


def test_the_order_of_regions_decides() -> None:
    turned = {**REGIONS, "labels": dict(reversed(REGIONS["labels"].items()))}
    assert description_sha256(turned) != description_sha256(REGIONS)
    assert description_sha256({**REGIONS, "regions_class_order": [2, 1]}) != description_sha256(
        {**REGIONS, "regions_class_order": [1, 2]}
    )


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> DataPaths:
    paths = data_paths(tmp_path / "data")
    shutil.copytree(data_paths(data).preprocessed / NAME, paths.preprocessed / NAME)
    return paths


def relabel(path: Path, change: Callable[[Any], Any]) -> None:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    changed = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(image)))
    changed.CopyInformation(image)
    SimpleITK.WriteImage(changed, str(path))


@pytest.mark.cluster
def test_a_result_is_that_of_its_labels_and_of_the_classes_that_exist(copied: DataPaths, tmp_path: Path) -> None:
    dataset, ledger = find_dataset(copied, NAME), Ledger.create(tmp_path / "study")
    references = dataset.references(dataset.split(0).validation)
    for path in references:
        relabel(path, lambda labels: np.where(labels == 2, 0, labels))
    spec = spec_of(copied, "cps", training={"epochs": 1, "iterations_per_epoch": 2})
    trial = run_trial(spec, ledger, workplace(copied))
    assert trial.result.dice == trial.result.dice_per_class["1"]
    assert trial.result.dice_per_class["2"] is None
    notes = [event["text"] for event in trial.folder.events() if event["event"] == "note"]
    assert notes == ["class 2 is in no validation case of fold 0: Dice is the mean of the others"]
    assert run_trial(spec, ledger, workplace(copied)).result == trial.result

    def refused() -> str:
        with pytest.raises(LedgerError, match=f"trial {spec.trial_id} was trained with other ") as error:
            run_trial(spec, ledger, workplace(copied))
        return str(error.value)

    before = (dataset.folder / "dataset.json").read_bytes()
    files.write_json(dataset.folder / "dataset.json", {**dataset.description, **REGIONS, "regions_class_order": [1, 2]})
    assert f"labels, channels or file ending in dataset.json of {NAME}; restore" in refused()
    # A trial from before inputs were recorded has nnU-Net's own copy of dataset.json.
    header = trial.folder.path / "attempts" / "000.json"
    new = header.read_text()
    header.write_text(json.dumps({name: value for name, value in json.loads(new).items() if name != "inputs"}))
    assert f"labels, channels or file ending in dataset.json of {NAME}; restore" in refused()
    (dataset.folder / "dataset.json").write_bytes(before)
    assert run_trial(spec, ledger, workplace(copied)).result == trial.result

    header.write_text(new)
    relabel(references[0], lambda labels: np.where(labels == 1, 2, labels))
    assert f"reference segmentations of {NAME} fold 0" in refused()
    for path in references:
        relabel(path, np.zeros_like)
    other = spec_of(copied, "cps", training={"epochs": 1, "iterations_per_epoch": 3})
    with pytest.raises(DataIntegrityError, match="no validation case of this fold shows any foreground class"):
        run_trial(other, ledger, workplace(copied))
    assert ledger.trial(other.trial_id).attempts() == []


def test_a_cascade_is_known_by_what_the_previous_stage_said(data: Path, tmp_path: Path) -> None:
    paths = cascade_plans(data, tmp_path)
    dataset = find_dataset(paths, NAME)
    plan = dataset.plan("CascadePlans", "3d_cascade_fullres")
    one, two = (
        trial_inputs(dataset, plan, 0, folder) for folder in (tmp_path / "previous", _other(tmp_path / "previous"))
    )
    assert [subject for subject in one if one[subject] != two[subject]] == [
        f"segmentations of the previous stage of 3d_cascade_fullres, {NAME} fold 0"
    ]


def _other(folder: Path) -> Path:
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    case = sorted(other.iterdir())[0]
    case.write_bytes(case.read_bytes() + b"\0")
    return other


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return load_space(write_space(tmp_path))


def test_a_study_records_what_it_rests_on_and_goes_on_under_the_same(
    space: SearchSpace, data: Path, tmp_path: Path
) -> None:
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    here = Provenance.here(space, data_paths(data))
    check_provenance(ledger, space, data_paths(data), here)
    assert ledger.header()["provenance"] == here.to_json()
    check_provenance(ledger, space, data_paths(data), Provenance.here(space, data_paths(data)))
    assert sorted(here.inputs) == [
        f"labels, channels or file ending in dataset.json of {NAME}",
        f"plans {CUBE} of {NAME}",
        f"preprocessed files of {NAME}/nnUNetPlans_3d_fullres",
        f"reference segmentations of {NAME} fold 0",
        f"split of {NAME} fold 0",
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch", "torch 0.0, was "),
        ("nnunetv2", "nnunetv2 0.0, was "),
        ("optuna", "optuna 0.0, was "),
        ("code", "this project's training 0.0, was "),
    ],
)
def test_another_version_is_named_and_refused(
    name: str, words: str, space: SearchSpace, data: Path, tmp_path: Path
) -> None:
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    here = Provenance.here(space, data_paths(data))
    check_provenance(ledger, space, data_paths(data), here)
    other = replace(here, versions={**here.versions, name: "0.0"})
    with pytest.raises(LedgerError) as refused:
        check_provenance(ledger, space, data_paths(data), other)
    assert words in str(refused.value)
    assert "name another --out to start a new one" in str(refused.value)
    assert ledger.header()["provenance"] == here.to_json()


def test_what_only_measures_or_shows_may_change() -> None:
    recorded = recorded_versions()
    changed = {**recorded, "codecarbon": "0.0", "ray": "0.0", "pgps-study": "0.0"}
    assert version_changes(changed, deciding_versions()) == []
    assert version_changes({}, deciding_versions()) == []
    assert version_changes({**recorded, "numpy": "0.0"}, deciding_versions()) == [f"numpy {recorded['numpy']}, was 0.0"]


def test_studies_that_recorded_a_digest_of_the_same_code_go_on() -> None:
    now = deciding_versions()
    for digest in EARLIER_CODE:
        assert version_changes({**now, "code": digest}, now) == []
    assert version_changes({**now, "code": "0" * 12}, now) == [f"this project's training {now['code']}, was {'0' * 12}"]


def test_caches_of_nnunet_and_another_place_are_no_change_and_a_changed_file_is_named(
    space: SearchSpace, data: Path, copied: DataPaths, tmp_path: Path
) -> None:
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    check_provenance(ledger, space, data_paths(data), Provenance.here(space, data_paths(data)))

    def check() -> None:
        check_provenance(ledger, space, copied, Provenance.here(space, copied))

    check()
    dataset = find_dataset(copied, NAME)
    folder = dataset.folder / dataset.plan(CUBE, FULL).data_identifier
    for name in ("phantom_000.npy", "phantom_000_seg.npy", ".nfs0001"):
        (folder / name).write_bytes(b"unpacked")
    (folder / "phantom_000.npz").write_bytes(b"compressed")
    with pytest.raises(LedgerError, match=r"\(phantom_000.npz 10 bytes, was absent\)"):
        check()


def described(**changes: Any) -> Callable[[Path], None]:
    """An edit of dataset.json; None takes a key out."""

    def edit(folder: Path) -> None:
        document = {**files.read_json(folder / "dataset.json"), **changes}
        files.write_json(folder / "dataset.json", {k: v for k, v in document.items() if v is not None})

    return edit


def of_fold(fold: int, part: str) -> Callable[[Path], None]:
    """Turn the order of a fold's cases round."""

    def edit(folder: Path) -> None:
        document = files.read_json(folder / "splits_final.json")
        document[fold][part].reverse()
        files.write_json(folder / "splits_final.json", document)

    return edit


def reference(fold: int) -> Callable[[Path], None]:
    """Another reference segmentation of a fold, of the same size in bytes."""

    def edit(folder: Path) -> None:
        case = files.read_json(folder / "splits_final.json")[fold]["val"][0]
        path = folder / "gt_segmentations" / f"{case}.nii.gz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return edit


def preprocessed(name: str, size: int | None, configuration: str = FULL) -> Callable[[Path], None]:
    """A file among a configuration's cases: written with so many bytes, or deleted."""

    def edit(folder: Path) -> None:
        path = folder / f"nnUNetPlans_{configuration}" / name
        path.unlink(missing_ok=True)
        if size is not None:
            path.write_bytes(bytes(size))

    return edit


DESCRIPTION_WORDS, FILES_WORDS = "labels, channels or file ending in dataset.json", "preprocessed files"
REFERENCE_WORDS = "reference segmentations"
EDITS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "a label more": (described(labels={"background": 0, "a": 1, "b": 2, "c": 3}), DESCRIPTION_WORDS),
    "a label less": (described(labels={"background": 0, "a": 1}), DESCRIPTION_WORDS),
    "an ignored label": (described(labels={"background": 0, "a": 1, "ignore": 2}), DESCRIPTION_WORDS),
    "regions": (
        described(labels={"background": 0, "all": [1, 2], "b": 2}, regions_class_order=[1, 2]),
        DESCRIPTION_WORDS,
    ),
    "another order of classes": (described(regions_class_order=[2, 1]), DESCRIPTION_WORDS),
    "another reader": (described(overwrite_image_reader_writer="SimpleITKIO"), DESCRIPTION_WORDS),
    "a channel more": (described(channel_names={"0": "a", "1": "b"}), DESCRIPTION_WORDS),
    "the same two values by other names": (described(labels={"background": 0, "b": 1, "a": 2}), None),
    "a channel renamed": (described(channel_names={"0": "renamed"}), None),
    "another file ending": (described(file_ending=".nrrd"), DESCRIPTION_WORDS),
    "labels by other names": (described(labels={"background": 0, "x": 1, "y": 2}), None),
    "labels in another order": (described(labels={"b": 2, "a": 1, "background": 0}), None),
    "a count and words": (described(numTraining=99, description="words", licence=None), None),
    "order of training cases": (of_fold(0, "train"), f"split of {NAME} fold 0"),
    "order of another fold's": (of_fold(1, "train"), None),
    "a reference of the same size": (reference(0), REFERENCE_WORDS),
    "a reference of another fold": (reference(1), None),
    "a case less": (preprocessed("phantom_003.b2nd", None), FILES_WORDS),
    "a case more": (preprocessed("phantom_999.b2nd", 7), FILES_WORDS),
    "a case of another size": (preprocessed("phantom_003_seg.b2nd", 7), FILES_WORDS),
    "properties of another size": (preprocessed("phantom_003.pkl", 7), FILES_WORDS),
    "an array without an archive": (preprocessed("phantom_003.npy", 7), FILES_WORDS),
    "a hidden file": (preprocessed("._phantom_003.b2nd", 7), None),
    "a file of another configuration": (preprocessed("phantom_999.b2nd", 7, "2d"), None),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_a_change_where_a_trial_reads_it(name: str, copied: DataPaths) -> None:
    edit, words = EDITS[name]

    def inputs() -> dict[str, str]:
        dataset = find_dataset(copied, NAME)
        plan = dataset.plan(CUBE, FULL)
        return {f"split of {NAME} fold 0": dataset.split(0).sha256, **trial_inputs(dataset, plan, 0, None)}

    before = inputs()
    edit(copied.preprocessed / NAME)
    changed = changed_inputs(before, inputs())
    assert [subject.startswith(words or "nothing") for subject in changed] == ([] if words is None else [True])


@pytest.mark.parametrize("unpacked", ["before", "after"])
def test_a_study_from_before_goes_on_where_nothing_changed(unpacked: str, copied: DataPaths, tmp_path: Path) -> None:
    space = load_space(write_space(tmp_path))
    dataset = find_dataset(copied, NAME)
    plan = dataset.plan(CUBE, FULL)
    folder = dataset.folder / plan.data_identifier
    (folder / "phantom_000.npz").write_bytes(b"compressed")
    if unpacked == "before":
        (folder / "phantom_000.npy").write_bytes(b"unpacked")
    sizes = preprocessed_sizes(folder, caches=True)
    (folder / "phantom_000.npy").write_bytes(b"unpacked")
    content = {"plans": plan.sha256, "split": {"0": dataset.split(0).sha256}, "files": sizes}
    earlier = {"versions": {}, "data": {f"{NAME}/{CUBE}/{FULL}": sha256_of_json(content)}, "rankings": {}}
    identity = space.identity()
    ledger = Ledger.create(tmp_path / "study", space=identity)
    ledger.amend(provenance=earlier)
    more = replace(space, folds=(0, 1))
    check_provenance(ledger, more, copied, Provenance.here(more, copied))
    assert ledger.header()["space"]["folds"] == [0, 1]
    ledger.amend(provenance=earlier, space=identity)
    (folder / "phantom_001.pkl").write_bytes(b"")
    with pytest.raises(LedgerError, match=f"plans, split or preprocessed files of {NAME}/{CUBE}/{FULL}; restore"):
        check_provenance(ledger, space, copied, Provenance.here(space, copied))


def test_defaults_are_what_they_came_to_when_the_study_was_made(copied: DataPaths, tmp_path: Path) -> None:
    folder = copied.preprocessed / NAME
    for other in ("PlannedPlans.json", "FlatPlans.json"):
        (folder / other).rename(folder / f"{other} aside")
    unnamed = load_space(write_space(tmp_path, plans=None))
    made = resolved_space(unnamed, copied, {})
    ledger = Ledger.create(tmp_path / "study", space=made.identity())
    assert made.resolved == {NAME: CUBE}
    # Another plans file, even one under nnU-Net's own name, changes nothing.
    shutil.copyfile(folder / "PlannedPlans.json aside", folder / "PlannedPlans.json")
    document = files.read_json(folder / "PlannedPlans.json")
    files.write_json(folder / "nnUNetPlans.json", {**document, "plans_name": "nnUNetPlans"})
    for plans, dataset in ((None, 901), (CUBE, 901), (None, NAME), (CUBE, NAME)):
        space = load_space(write_space(tmp_path, plans=plans, datasets=[dataset]))
        again = resolved_space(space, copied, ledger.header())
        assert again.plans_of(dataset) == CUBE
        Ledger.create(tmp_path / "study", space=again.identity())
    named = load_space(write_space(tmp_path, plans="nnUNetPlans"))
    with pytest.raises(LedgerError, match="belongs to another study: plans differ"):
        Ledger.create(tmp_path / "study", space=resolved_space(named, copied, ledger.header()).identity())
    # A study from before says it in its provenance.
    header = {"space": unnamed.identity(), "provenance": {"data": {f"{NAME}/{CUBE}/{FULL}": "0"}}}
    assert resolved_space(unnamed, copied, header).resolved == {NAME: CUBE}


def test_minus_zero_is_zero(tmp_path: Path, data: Path) -> None:
    paths = data_paths(data)
    plain = spec_of(paths, min_patch=0.0, batch_growth=0.0, training={"weight_decay": 0.0, "momentum": 0.0})
    minus = spec_of(paths, min_patch=-0.0, batch_growth=-0.0, training={"weight_decay": -0.0, "momentum": -0.0})
    assert (json.dumps(minus.to_json()), minus.trial_id) == (json.dumps(plain.to_json()), plain.trial_id)
    written = {"min_patch": [-0.0, 0.5], "batch_growth": {"uniform": [-0.0, 1.0]}, "pdl_fraction": -0.0}
    space = load_space(write_space(tmp_path, searcher="optuna", curriculum=written))
    assert "-0.0" not in json.dumps(space.identity())


def test_finished_trials_with_other_labels_are_not_adopted(copied: DataPaths, tmp_path: Path) -> None:
    space = load_space(write_space(tmp_path))
    ledger = Ledger.create(tmp_path / "study", space=space.identity())
    folder = ledger.add(spec_of(copied), by_hand=True)
    finish(folder)
    path = folder.path / "attempts" / "000.json"
    subject = f"labels, channels or file ending in dataset.json of {NAME}"
    path.write_text(json.dumps({**json.loads(path.read_text()), "inputs": {subject: "0"}}))
    with pytest.raises(LedgerError, match=f"holds trial {folder.trial_id}, made with other labels, channels"):
        check_provenance(ledger, space, copied, Provenance.here(space, copied))
