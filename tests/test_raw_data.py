"""Raw datasets as people have them: sources, contradictions named in one line, changes that are seen, oddities."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK
from raw_data import describe, rewrite, with_label_seven

from study.common import files
from study.common.errors import DataIntegrityError, InvalidInputError, MissingDataError, StudyError
from study.common.serialize import sha256_of_json
from study.nnunet import integrity
from study.nnunet.datasets import DataPaths, dataset_id, description_problems
from study.nnunet.integrity import look, oddities
from study.nnunet.phantom import write_phantom_dataset
from study.nnunet.prepare import prepare, sources
from study.nnunet.prepare.sources import inventory, is_inventory, msd_source, raw_source


@pytest.mark.parametrize(
    ("folder", "number", "dataset"),
    [
        ("Task04_Hippocampus", None, "Dataset004_Hippocampus"),
        ("Task04_Hippocampus", 44, "Dataset044_Hippocampus"),
        ("Task07_two words_more", None, "Dataset007_twowordsmore"),
        ("my download", 3, "Dataset003_mydownload"),
    ],
)
def test_tasks_are_named(tmp_path: Path, folder: str, number: int | None, dataset: str) -> None:
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / folder / part).mkdir(parents=True)
    files.write_json(tmp_path / folder / "dataset.json", {"labels": {"0": "background"}})
    assert msd_source(tmp_path / folder, number).dataset == dataset


def test_a_raw_dataset_keeps_its_name_and_a_link_gives_its_own(raw: Path) -> None:
    link = raw.with_name("Dataset015_Linked")
    link.symlink_to(raw)
    assert (raw_source(link).dataset, raw_source(link).folder) == ("Dataset015_Linked", raw)
    other = raw.rename(raw.with_name("Dataset012_With_Underscores"))
    assert raw_source(other).dataset == "Dataset012_With_Underscores"
    assert raw_source(other, 13).dataset == "Dataset013_With_Underscores"


def of_raw(raw: Path) -> Any:
    return raw_source(raw)


def of_task(raw: Path) -> Any:
    return msd_source(raw, 4)


def labelled(labels: Any) -> Callable[[Path], Any]:
    return lambda raw: describe(raw, labels=labels)


def written(text: str) -> Callable[[Path], Any]:
    return lambda raw: (raw / "dataset.json").write_text(text)


BY_VALUE = r"legal are names by value: \{\"0\": \"background\""
REFUSED: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any], type[StudyError], str]] = {
    "no number": (
        lambda raw: raw.rename(raw.with_name("phantoms")),
        lambda raw: raw_source(raw.with_name("phantoms")),
        InvalidInputError,
        r"--id: received 'nothing'.*'phantoms' holds none",
    ),
    "id 0": (Path.exists, lambda raw: raw_source(raw, 0), InvalidInputError, "--id: received 0"),
    "id 100000": (Path.exists, lambda raw: raw_source(raw, 100_000), InvalidInputError, "--id: received 100000"),
    "no folder": (shutil.rmtree, of_task, InvalidInputError, "--msd: received .*legal is a folder with dataset.json"),
    "no labels": (
        lambda raw: shutil.rmtree(raw / "labelsTr"),
        of_raw,
        MissingDataError,
        "but no labelsTr; the download is incomplete",
    ),
    "labels missing": (labelled(None), of_task, DataIntegrityError, BY_VALUE),
    "labels listed": (labelled(["background"]), of_task, DataIntegrityError, BY_VALUE),
    "labels by name": (labelled({"background": 0}), of_task, DataIntegrityError, BY_VALUE),
    "broken JSON": (written("{"), of_raw, DataIntegrityError, "dataset.json cannot be read as JSON"),
    "deep JSON": (written('{"a":' * 100_000), of_raw, DataIntegrityError, "it is nested too deeply"),
    "a link to nothing": (
        lambda raw: (raw / "imagesTr" / "phantom_009_0000.nii.gz").symlink_to("nowhere"),
        inventory,
        MissingDataError,
        "phantom_009_0000.nii.gz cannot be read",
    ),
    "a pipe": (
        lambda raw: os.mkfifo(raw / "labelsTr" / "phantom_009.nii.gz"),
        inventory,
        MissingDataError,
        "phantom_009.nii.gz cannot be read: it is no regular file",
    ),
    "a device": (
        lambda raw: (raw / "imagesTr" / "phantom_009_0000.nii.gz").symlink_to("/dev/zero"),
        inventory,
        MissingDataError,
        "cannot be read: it is no regular file",
    ),
    "a name in Latin-1": (
        lambda raw: Path(os.fsdecode(os.fsencode(raw / "imagesTr") + b"/a\xff_0000.nii.gz")).touch(),
        of_raw,
        DataIntegrityError,
        r"imagesTr: 'a\\udcff_0000.nii.gz' is no name of a case, which is UTF-8; rename the file",
    ),
    "of nnU-Net v1": (
        lambda raw: describe(raw, channel_names=["T1"]),
        of_raw,
        DataIntegrityError,
        r"dataset.json: channel_names is \['T1'\], legal are names by number",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_source_is_refused(raw: Path, name: str) -> None:
    spoil, use, kind, message = REFUSED[name]
    spoil(raw)
    with pytest.raises(kind, match=message):
        use(raw)


def image(folder: Path) -> Path:
    return folder / "imagesTr" / "phantom_001_0000.nii.gz"


def label(folder: Path) -> Path:
    return folder / "labelsTr" / "phantom_001.nii.gz"


CONTRADICTIONS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "unknown label": (lambda f: rewrite(label(f), with_label_seven), r"phantom_001.nii.gz: label value 7 is not in"),
    "half a label": (lambda f: rewrite(label(f), lambda a: a / 2), r"label value 0.5 is not in"),
    "another shape": (
        lambda f: rewrite(label(f), lambda a: np.zeros((8, 9, 10), np.uint8)),
        r"labelsTr/phantom_001.nii.gz: shape 8 9 10, but that of its image is 48 55 56",
    ),
    "another spacing": (lambda f: rewrite(label(f), lambda a: a, 2.0), r"spacing 2 2 2 mm, but that of its image is 1"),
    "a missing label": (lambda f: label(f).unlink(), r"labelsTr/phantom_001.nii.gz is missing"),
    "a missing image": (lambda f: image(f).unlink(), r"numTraining is 2, found are 1 cases"),
    "a channel too few": (
        lambda f: describe(f, channel_names={"0": "T1", "1": "T2"}),
        r"the case has 1 channels, dataset.json names 2",
    ),
    "labels with a gap": (lambda f: describe(f, labels={"background": 0, "a": 1, "b": 3}), r"label values are 0 1 3"),
    "a key too few": (written('{"labels": {}}'), r"lacks channel_names, numTraining"),
    "nearly a label": (
        lambda f: rewrite(label(f), lambda a: np.where(a == 1, np.float32(0.99999994), a).astype(np.float32)),
        r"label value 0\.99999994 is not in dataset\.json, legal is one of 0 1 2$",
    ),
    "nesting without end": (written("[" * 100_000), r"it is nested too deeply"),
    "a damaged image": (lambda f: image(f).write_bytes(b"nothing"), r"phantom_001_0000.nii.gz cannot be read"),
    "leftovers of macOS": (
        lambda f: (f / "imagesTr" / "._phantom_001_0000.nii.gz").touch(),
        r"imagesTr has 1 hidden files like \._phantom_001",
    ),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("sound"), cases=2)


def problem_of(folder: Path) -> str:
    problem = next(integrity.problems(folder))
    assert "\n" not in problem
    return problem


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_named_in_one_line(sound: Path, tmp_path: Path, name: str) -> None:
    assert list(integrity.problems(sound)) == []
    folder = Path(shutil.copytree(sound, tmp_path / "spoilt"))
    spoil, message = CONTRADICTIONS[name]
    spoil(folder)
    assert re.search(message, problem_of(folder)), problem_of(folder)


@pytest.mark.parametrize("spoilt", ["phantom_001_0000.mha", "phantom_001.mha"])
def test_voxels_that_are_no_number_are_named(sound: Path, tmp_path: Path, spoilt: str) -> None:
    # Not NIfTI: ITK reads NaN in it as 0, and so does nnU-Net.
    describe(Path(shutil.copytree(sound, tmp_path / "spoilt")), file_ending=".mha")
    for path in (tmp_path / "spoilt").rglob("*.nii.gz"):
        voxels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).astype(np.float32)
        target = path.with_name(path.name.replace(".nii.gz", ".mha"))
        voxels[0] = np.nan if target.name == spoilt else voxels[0]
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(target))
    assert problem_of(tmp_path / "spoilt").endswith(f"{spoilt} holds voxels that are not a number (NaN)")


BY_NUMBER, VALUES = "legal are names by number", "labels is .*, legal are values by name"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": None, "modality": {"0": "MRI"}}, r"in `modality` as nnU-Net v1 did; convert"),
        ({"channel_names": {"T1": 0, "T2": 1}}, rf"channel_names is {{'T1': 0, 'T2': 1}}, {BY_NUMBER}"),
        ({"channel_names": ["T1", "T2"]}, rf"channel_names is \['T1', 'T2'\], {BY_NUMBER}"),
        ({"channel_names": {}}, rf"channel_names is {{}}, {BY_NUMBER}"),
        ({"channel_names": {"1": "T1"}}, rf"channel_names is {{'1': 'T1'}}, {BY_NUMBER}"),
        ({"labels": {"0": "background", "1": "body"}}, VALUES),
        ({"labels": ["background", "body"]}, VALUES),
        ({"labels": {"background": 0, "body": "one"}}, VALUES),
        ({"labels": {"background": 0, "body": None}}, VALUES),
        ({"labels": {"background": 0, "whole": []}}, VALUES),
        ({"labels": {"body": 1}}, r"labels is {'body': 1}, which has no background of value 0"),
        ({"labels": {}}, "labels is {}, which has no background"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, "regions_class_order is None, legal is a list"),
        (
            {"labels": {"background": 0, "whole": [1, 2], "bud": 2}, "regions_class_order": [1]},
            r"regions_class_order is \[1\], legal is a list with a value for every region",
        ),
        ({"labels": {"background": 0, "a": 1, "b": 3}}, "label values are 0 1 3, legal"),
        ({"labels": {"background": 0, "ignore": 1, "b": 2}}, "label values are 0 2 1, legal are"),
        ({"labels": {"background": 0, "a": 1, "ignore": [2]}}, r"label values are 0 1 \[2\], legal are"),
        ({"file_ending": "nii.gz"}, r"file_ending is 'nii.gz', legal is the end"),
        ({"numTraining": "ten"}, r"numTraining is 'ten', legal is the number"),
        ({"dataset": {"a": {"images": ["a.nii.gz"]}}}, r"dataset is .*, legal are cases by name"),
        ({"dataset": ["a.nii.gz"]}, r"dataset is \['a.nii.gz'\], legal are cases by name"),
        ({"dataset": {"a": {"images": [], "label": "a.nii.gz"}}}, "legal are cases by name"),
        *(
            ({"dataset": {name: {"images": ["a.nii.gz"], "label": "b.nii.gz"}}}, "legal are cases by name")
            for name in ("../a", "a/b", "", "a\0", "a\udc00")
        ),
        *(
            (
                {"labels": {"background": 0, "whole": [1, 2], "bud": 2}, "regions_class_order": order},
                rf"regions_class_order is {re.escape(str(order))}, legal .* of its own, each once",
            )
            for order in ([2, 2], [1, 1], [7, 2], [2, 1], ["1", 2], [True, 2], [[1], 2])
        ),
    ],
)
def test_a_description_that_nnunet_cannot_read_is_named(sound: Path, change: dict[str, Any], message: str) -> None:
    description = {**files.read_json(sound / "dataset.json"), **change}
    problem = next(description_problems({k: v for k, v in description.items() if v is not None}))
    assert re.search(message, problem), problem
    assert "\n" not in problem


def test_fewer_cases_than_folds_are_told_at_once_with_the_way(sound: Path, paths: DataPaths) -> None:
    with pytest.raises(MissingDataError, match=r"has 2 cases, .* write your own .*splits_final.json, a list with"):
        prepare(raw_source(sound), paths)


@pytest.mark.parametrize(("number", "name"), [(1000, "Dataset1000_A"), (12345, "Dataset12345_A"), (7, "Dataset007_A")])
def test_ids_of_any_length_are_ids(raw: Path, paths: DataPaths, number: int, name: str) -> None:
    folder = raw.rename(raw.with_name(name))
    assert raw_source(folder).dataset == name
    assert dataset_id(name) == number
    # nnU-Net takes the beginning of a name for an id.
    (paths.preprocessed / f"{name}".replace("_", "0_")).mkdir(parents=True)
    with pytest.raises(InvalidInputError, match=f"--id: received {number}, legal is an id that is free"):
        prepare(raw_source(folder), paths)


def test_what_changed_in_place_or_elsewhere_is_seen(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, elsewhere = Path(shutil.copytree(sound, tmp_path / "raw" / "folder")), tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(image(folder), elsewhere / "image.nii.gz")
    listed = {"phantom_001": {"images": ["../../elsewhere/image.nii.gz"], "label": str(label(folder))}}
    describe(folder, dataset=listed)
    before = inventory(folder)
    for path in (elsewhere / "image.nii.gz", label(folder)):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert inventory(folder) != before, path
        path.write_bytes(content)
        assert inventory(folder) == before
    # Large files are known by size and time.
    monkeypatch.setattr(sources, "SMALL_FILE_BYTES", 0)
    before, found = inventory(folder), label(folder).stat()
    os.utime(label(folder), ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert inventory(folder) != before
    # What the first version recorded were names and sizes.
    inside = [
        folder / "dataset.json",
        *sorted((folder / "imagesTr").iterdir()),
        *sorted((folder / "labelsTr").iterdir()),
    ]
    recorded = sha256_of_json([[str(path.relative_to(folder)), path.stat().st_size] for path in inside])
    assert is_inventory(recorded, folder) and is_inventory(inventory(folder), folder)
    assert not is_inventory(before, folder)
    (elsewhere / "image.nii.gz").unlink()
    with pytest.raises(MissingDataError, match=r"elsewhere/image.nii.gz cannot be read: No such file"):
        inventory(folder)


def test_oddities_of_geometry_and_voxels_are_notes(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = files.read_json(raw / "dataset.json")
    # A pool that is none: what it does is the same, and needs no second interpreter.
    context = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setattr(integrity, "multiprocessing", SimpleNamespace(get_context=lambda _: context))
    assert oddities(raw, description, workers=1) == []

    def spoil(path: str, change: Callable[[Any], Any]) -> None:
        file = str(raw / path)
        found = SimpleITK.ReadImage(file)
        SimpleITK.WriteImage(change(found) or found, file)

    def put(value: float) -> Callable[[Any], Any]:
        def change(voxels: Any) -> Any:
            voxels = voxels.astype(np.float32)
            voxels[3, 3, 3] = value
            return voxels

        return change

    spoil("labelsTr/phantom_000.nii.gz", lambda image: image.SetOrigin((10.0, 0.0, 0.0)))
    spoil("labelsTr/phantom_001.nii.gz", lambda image: image.SetDirection((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)))
    rewrite(raw / "labelsTr/phantom_002.nii.gz", put(np.nan))
    rewrite(raw / "imagesTr/phantom_002_0000.nii.gz", put(np.inf))
    spoil("imagesTr/phantom_003_0000.nii.gz", lambda image: image[:, :, :1])
    spoil("imagesTr/phantom_004_0000.nii.gz", lambda image: image[:, :, 0])
    found = oddities(raw, description, workers=1)
    assert [re.sub(r"/.*/", "", line) for line in found] == [
        "the origin of 1 label differs from that of the image; nnU-Net goes by voxels: check that they overlay "
        "(the first is phantom_000.nii.gz)",
        "the direction of 1 label differs from that of the image; nnU-Net goes by voxels: check that they overlay "
        "(the first is phantom_001.nii.gz)",
        "2 images one slice thick, others have more: 2D images among 3D ones are padded and augmented as 3D "
        "(the first is phantom_003_0000.nii.gz)",
        "1 image with voxels that are not finite (NaN or infinite): they reach the network, or become 0 unsaid "
        "(the first is phantom_002_0000.nii.gz)",
        "1 label with voxels that are not finite (NaN or infinite): they become 0 or another value unsaid "
        "(the first is phantom_002.nii.gz)",
    ]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("dtype", "value", "odd"),
    [
        (np.float32, np.nan, True),
        (np.float32, -np.inf, True),
        (np.float64, 1e300, True),
        (np.float64, 1e30, False),
        (np.int16, -1, False),
    ],
)
def test_voxels_that_no_float_holds_are_seen(tmp_path: Path, ending: str, dtype: Any, value: float, odd: bool) -> None:
    voxels = np.ones((4, 4, 4), dtype)
    voxels[1, 2, 3] = value
    image, label = str(tmp_path / f"image{ending}"), str(tmp_path / f"label{ending}")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), image)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((4, 4, 4), np.uint8)), label)
    assert look([image], label) == ([("not finite", image)] if odd else [])
    assert look([label], image) == ([("label not finite", image)] if odd else [])


@pytest.mark.parametrize("place", ["origin", "direction"])
def test_channels_that_lie_elsewhere_are_seen(tmp_path: Path, place: str) -> None:
    paths = [str(tmp_path / f"{number}.nrrd") for number in range(3)]
    for path in paths:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((4, 4, 4), np.uint8)), path)
    assert look(paths[:2], paths[2]) == []
    image = SimpleITK.ReadImage(paths[1])
    if place == "origin":
        image.SetOrigin((0.0, 0.0, 3.0))
    else:
        image.SetDirection((0.0, 1, 0, -1, 0, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, paths[1])
    assert look(paths[:2], paths[2]) == [("channel", paths[1])]


def test_a_file_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "image.nii.gz"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.random.default_rng(0).random((8, 8, 8))), str(path))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataIntegrityError, match=f"^{path} is damaged or cut short .*; copy it again$") as error:
        look([str(path)], str(path))
    assert "\n" not in str(error.value)
