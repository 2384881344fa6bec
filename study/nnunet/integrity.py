"""Whether a raw dataset contradicts itself. nnU-Net's own verification decides; this says in one line what it found.

nnU-Net prints pages and asserts. When it refuses a dataset, the files are looked through with its own readers until the
first contradiction, and that is named: file, what was found, what is legal.

What nnU-Net only warns of, or does not see, in a raw dataset: a line for each kind, with the first file.

Geometry is read from headers. Voxels that are no finite number can only be in floating-point images, so only those are
read once more; what reads NIfTI for nnU-Net turns some of them into 0 without a word.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import DataIntegrityError
from study.nnunet.datasets import description_problems

SHOWN = 3
Cases = dict[str, dict[str, Any]]
"""By identifier: `images`, one path per channel, and `label`."""


def verify_dataset(folder: Path, *, workers: int) -> None:
    """Verify a raw dataset with nnU-Net, all cases.

    Raises:
        DataIntegrityError: the dataset contradicts itself.
    """
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    try:
        verify_dataset_integrity(str(folder), workers)
    except Exception as error:  # nnU-Net asserts, raises, and its readers raise what they like
        print(f"nnU-Net refuses the dataset: {type(error).__name__}: {error}", flush=True)
        first_line = str(error).strip().splitlines()[:1]
        reason = _diagnosis(folder) or f"{folder}: nnU-Net refuses it: {' '.join(first_line)}"
        raise DataIntegrityError(reason) from error


def first_problem(folder: Path) -> str | None:
    """The first contradiction of a raw dataset in one line, None when there is none."""
    try:
        description = files.read_json(folder / "dataset.json")
    except (OSError, ValueError) as error:
        return f"{folder / 'dataset.json'} cannot be read as JSON: {error}"
    problem = next(_description_problems(folder, description), None)
    if problem is not None:
        return problem
    cases = training_cases(folder, description)
    return next(chain(_file_problems(folder, description, cases), _case_problems(description, cases)), None)


def training_cases(folder: Path, description: dict[str, Any]) -> Cases:
    """Training cases of a raw dataset as nnU-Net lists them, without the twelve processes that it takes for that."""
    from nnunetv2.utilities import utils

    if "dataset" in description:
        listed: Cases = utils.get_filenames_of_train_images_and_targets(str(folder), description)
        return listed
    images, ending = str(folder / "imagesTr"), description["file_ending"]
    names = sorted(path.name for path in (folder / "imagesTr").iterdir())
    return {
        str(case): {
            "images": utils.create_paths_fn(images, names, ending, case),
            "label": str(folder / "labelsTr" / f"{case}{ending}"),
        }
        for case in utils.get_identifiers_from_splitted_dataset_folder(images, ending)
    }


def _diagnosis(folder: Path) -> str | None:
    try:
        return first_problem(folder)
    except Exception:  # nnU-Net's own message is left then
        return None


def _description_problems(folder: Path, description: dict[str, Any]) -> Iterator[str]:
    path = folder / "dataset.json"
    yield from (f"{path}: {problem}" for problem in description_problems(description))


def _file_problems(folder: Path, description: dict[str, Any], cases: Cases) -> Iterator[str]:
    hidden = [name for name in cases if name.startswith(".")]
    if hidden:
        yield f"{folder / 'imagesTr'} has {len(hidden)} hidden files like {hidden[0]}… that are no images; delete them"
    if not cases or len(cases) != description["numTraining"]:
        yield f"{folder / 'dataset.json'}: numTraining is {description['numTraining']}, found are {len(cases)} cases"
    for case in cases.values():
        for path in (*case["images"], case["label"]):
            if not Path(path).exists():
                yield f"{path} is missing; every training image needs a label"


def _case_problems(description: dict[str, Any], cases: Cases) -> Iterator[str]:
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    ending, example = description["file_ending"], next(iter(cases.values()))["images"][0]
    try:
        reader = determine_reader_writer_from_dataset_json(description, example)()
    except RuntimeError:
        yield f"{example} cannot be read as {ending} by nnU-Net"
        return
    for case in cases.values():
        yield from _contradictions(reader, case, len(description["channel_names"]), _legal_labels(description))


def _contradictions(reader: Any, case: dict[str, Any], channels: int, legal: list[int]) -> Iterator[str]:
    import numpy as np

    images, label = case["images"], case["label"]
    try:
        image, image_properties = _read(reader.read_images, images, images[0])
        labels, label_properties = _read(reader.read_seg, label, label)
    except DataIntegrityError as error:
        yield str(error)
        return
    if len(image) != channels:
        yield f"{images[0]}: the case has {len(image)} channels, dataset.json names {channels}"
    values = np.unique(labels[~np.isnan(labels)])
    unknown = values[~np.isin(values, legal)]
    if np.isnan(image).any() or np.isnan(labels).any():
        yield f"{images[0] if np.isnan(image).any() else label} holds voxels that are not a number (NaN)"
    if image.shape[1:] != labels.shape[1:]:
        yield f"{label}: shape {_words(labels.shape[1:])}, but that of its image is {_words(image.shape[1:])}"
    if not np.allclose(image_properties["spacing"], label_properties["spacing"]):
        spacings = _words(label_properties["spacing"]), _words(image_properties["spacing"])
        yield f"{label}: spacing {spacings[0]} mm, but that of its image is {spacings[1]} mm"
    if len(unknown):
        shown = _words(unknown[:SHOWN]) + (" …" if len(unknown) > SHOWN else "")
        yield f"{label}: label value {shown} is not in dataset.json, legal is one of {_words(legal)}"


def _read(read: Callable[[Any], tuple[Any, dict[str, Any]]], given: Any, path: str) -> tuple[Any, dict[str, Any]]:
    try:
        return read(given)
    except Exception as error:  # every reader has its own
        detail = " ".join(str(error).split()) or "its channels differ in shape or spacing"
        raise DataIntegrityError(f"{path} cannot be read: {detail}") from error


def _legal_labels(description: dict[str, Any]) -> list[int]:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(description["labels"], regions_class_order=description.get("regions_class_order"))
    return [*manager.all_labels, *([manager.ignore_label] if manager.has_ignore_label else [])]


def _words(values: Any) -> str:
    import numpy as np

    # The shortest decimals that are this very number: 0.99999994 is not 1.
    numbers: list[Any] = [np.asarray(value)[()] for value in values]
    return " ".join(np.format_float_positional(number, trim="-") for number in numbers)


Found = tuple[str, str]
"""Kind of oddity, and the file that has it."""

KINDS: Mapping[str, str] = {
    "origin": "the origin of {n} differs from that of the image; nnU-Net goes by voxels: check that they overlay",
    "direction": "the direction of {n} differs from that of the image; nnU-Net goes by voxels: check that they overlay",
    "channel": "{n} with another origin or direction than the first channel of the case; nnU-Net goes by voxels: check "
    "that they overlay",
    "flat": "{n} one slice thick, others have more: 2D images among 3D ones are padded and augmented as 3D",
    "not finite": "{n} with voxels that are not finite (NaN or infinite): they reach the network, or become 0 unsaid",
    "label not finite": "{n} with voxels that are not finite (NaN or infinite): they become 0 or another value unsaid",
}
_OF_LABELS = ("origin", "direction", "label not finite")
NIFTI = (".nii", ".nii.gz")


def oddities(folder: Path, description: Mapping[str, Any], *, workers: int) -> list[str]:
    """Sentences about a verified raw dataset; none when nothing is odd."""
    cases = [(case["images"], case["label"]) for case in training_cases(folder, dict(description)).values()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        looked = pool.starmap(look, cases, chunksize=8)
    found = [odd for odds in looked for odd in odds]
    flat = {path for kind, path in found if kind == "flat"}
    if len(flat) == len(cases):
        # A dataset of slices is one on purpose.
        found = [odd for odd in found if odd[0] != "flat"]
    return [_sentence(kind, [path for odd, path in found if odd == kind]) for kind in KINDS if kind in dict(found)]


def look(images: list[str], label: str) -> list[Found]:
    """What is odd about one case.

    Raises:
        DataIntegrityError: a file ends before its voxels do, or holds others than its header says.
    """
    found: list[Found] = []
    geometry = _geometry(images[0])
    of_label = _geometry(label)
    if geometry and of_label and len(geometry["size"]) == len(of_label["size"]):
        found += [(kind, label) for kind in ("origin", "direction") if _differ(geometry[kind], of_label[kind])]
    if geometry and (len(geometry["size"]) == 2 or 1 in geometry["size"][:3]):
        found.append(("flat", images[0]))
    others = [(path, _geometry(path)) for path in images[1:]]
    found += [("channel", path) for path, other in others if geometry and other and _lies_elsewhere(geometry, other)]
    found += [("not finite", path) for path in images if not _is_finite(path)]
    return found + ([] if _is_finite(label) else [("label not finite", label)])


def _lies_elsewhere(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same_axes = len(one["size"]) == len(other["size"])
    return same_axes and any(_differ(one[kind], other[kind]) for kind in ("origin", "direction"))


def _geometry(path: str) -> dict[str, Any] | None:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # not a format of ITK's; nnU-Net's own reader has read it
        return None
    return {
        "size": reader.GetSize(),
        "origin": reader.GetOrigin(),
        "direction": reader.GetDirection(),
        "is_float": reader.GetPixelID() in (SimpleITK.sitkFloat32, SimpleITK.sitkFloat64),
    }


def _is_finite(path: str) -> bool:
    import numpy as np

    geometry = _geometry(path)
    if geometry is None or not geometry["is_float"]:
        return True
    with np.errstate(over="ignore"):
        # As nnU-Net has it: a double may be beyond what a float holds.
        return bool(np.isfinite(_voxels(path).astype(np.float32)).all())


def _voxels(path: str) -> Any:
    import nibabel
    import numpy as np
    import SimpleITK

    try:
        if path.endswith(NIFTI):
            image: Any = nibabel.load(path)
            return np.asanyarray(image.dataobj)
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
    except Exception as error:  # every reader has its own
        detail = " ".join(str(error).split())
        raise DataIntegrityError(f"{path} is damaged or cut short ({detail}); copy it again") from error


def _differ(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    import numpy as np

    return not np.allclose(one, other)


def _sentence(kind: str, paths: list[str]) -> str:
    noun = "label" if kind in _OF_LABELS else "image"
    number = f"{len(paths)} {noun}" if len(paths) == 1 else f"{len(paths)} {noun}s"
    return f"{KINDS[kind].format(n=number)} (the first is {paths[0]})"
