"""Whether a raw dataset contradicts itself. nnU-Net's own verification decides; this says in one line what it found.

nnU-Net prints pages and asserts. When it refuses a dataset, the files are looked through with its own readers until the
first contradiction, and that is named: file, what was found, what is legal. What nnU-Net only warns of, or does not
see, is a note: a line for each kind, with the first file.

Geometry is read from headers. Voxels that are no finite number can only be in floating-point images, so only those are
read once more; what reads NIfTI for nnU-Net turns some of them into 0 without a word.
"""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import DataIntegrityError
from study.nnunet.datasets import DESCRIPTION, description_problems

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
        reason = f"{folder}: nnU-Net refuses it: {' '.join(str(error).strip().splitlines()[:1])}"
        try:
            reason = next(problems(folder), reason)
        except Exception as unexpected:  # the same; nnU-Net's own message is left then
            print(f"no diagnosis: {type(unexpected).__name__}: {unexpected}", flush=True)
        raise DataIntegrityError(reason) from error


def problems(folder: Path) -> Iterator[str]:
    """The contradictions of a raw dataset in one line each, cheap ones first; only the first is sure to be one."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    path = folder / DESCRIPTION
    try:
        description = files.read_json(path)
    except (OSError, ValueError) as error:
        yield f"{path} cannot be read as JSON: {error}"
        return
    yield from (f"{path}: {problem}" for problem in description_problems(description))
    cases = training_cases(folder, description)
    hidden = [name for name in cases if name.startswith(".")]
    if hidden:
        yield f"{folder / 'imagesTr'} has {len(hidden)} hidden files like {hidden[0]}… that are no images; delete them"
    if not cases or len(cases) != description["numTraining"]:
        yield f"{path}: numTraining is {description['numTraining']}, found are {len(cases)} cases"
    for case in cases.values():
        for file in (*case["images"], case["label"]):
            if not Path(file).exists():
                yield f"{file} is missing; every training image needs a label"
    example = next(iter(cases.values()))["images"][0]
    try:
        reader = determine_reader_writer_from_dataset_json(description, example)()
    except RuntimeError:
        yield f"{example} cannot be read as {description['file_ending']} by nnU-Net"
        return
    for case in cases.values():
        yield from _contradictions(reader, case, description)


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


def _contradictions(reader: Any, case: dict[str, Any], description: dict[str, Any]) -> Iterator[str]:
    import numpy as np
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    images, label, channels = case["images"], case["label"], len(description["channel_names"])
    try:
        image, image_properties = _read(reader.read_images, images, images[0])
        labels, label_properties = _read(reader.read_seg, label, label)
    except DataIntegrityError as error:
        yield str(error)
        return
    if len(image) != channels:
        yield f"{images[0]}: the case has {len(image)} channels, dataset.json names {channels}"
    if np.isnan(image).any() or np.isnan(labels).any():
        yield f"{images[0] if np.isnan(image).any() else label} holds voxels that are not a number (NaN)"
    if image.shape[1:] != labels.shape[1:]:
        yield f"{label}: shape {_words(labels.shape[1:])}, but that of its image is {_words(image.shape[1:])}"
    spacings = label_properties["spacing"], image_properties["spacing"]
    if not np.allclose(*spacings):
        yield f"{label}: spacing {_words(spacings[0])} mm, but that of its image is {_words(spacings[1])} mm"
    manager = LabelManager(description["labels"], regions_class_order=description.get("regions_class_order"))
    legal = [*manager.all_labels, *([manager.ignore_label] if manager.has_ignore_label else [])]
    unknown = np.setdiff1d(labels, legal)
    if len(unknown):
        shown = _words(unknown[:SHOWN]) + (" …" if len(unknown) > SHOWN else "")
        yield f"{label}: label value {shown} is not in dataset.json, legal is one of {_words(legal)}"


def _read(read: Callable[[Any], Any], given: Any, path: str, *, trouble: str = "cannot be read: {}") -> Any:
    try:
        return read(given)
    except Exception as error:  # every reader has its own
        detail = " ".join(str(error).split()) or "its channels differ in shape or spacing"
        raise DataIntegrityError(f"{path} {trouble.format(detail)}") from error


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


def oddities(folder: Path, description: Mapping[str, Any], *, workers: int) -> list[str]:
    """Sentences about a verified raw dataset; none when nothing is odd."""
    cases = [(case["images"], case["label"]) for case in training_cases(folder, dict(description)).values()]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        looked = pool.starmap(look, cases, chunksize=8)
    found = defaultdict(list)
    for kind, path in (odd for odds in looked for odd in odds):
        found[kind].append(path)
    if len(found["flat"]) == len(cases):
        # A dataset of slices is one on purpose.
        del found["flat"]
    sentences = []
    for kind in (kind for kind in KINDS if found[kind]):
        paths, noun = found[kind], "label" if kind in _OF_LABELS else "image"
        number = f"{len(paths)} {noun}{'' if len(paths) == 1 else 's'}"
        sentences.append(f"{KINDS[kind].format(n=number)} (the first is {paths[0]})")
    return sentences


def look(images: list[str], label: str) -> list[Found]:
    """What is odd about one case.

    Raises:
        DataIntegrityError: a file ends before its voxels do, or holds others than its header says.
    """
    first, *others = (_geometry(path) for path in images)
    found = [(kind, label) for kind in _differences(first, _geometry(label))]
    if first and (len(first["size"]) == 2 or 1 in first["size"][:3]):
        found.append(("flat", images[0]))
    channels = zip(images[1:], others, strict=True)
    found += [("channel", path) for path, other in channels if _differences(first, other)]
    found += [("not finite", path) for path in images if not _is_finite(path)]
    return found + ([] if _is_finite(label) else [("label not finite", label)])


def _differences(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[str]:
    import numpy as np

    if not one or not other or len(one["size"]) != len(other["size"]):
        return []
    return [kind for kind in ("origin", "direction") if not np.allclose(one[kind], other[kind])]


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
    voxels = _read(_voxels, path, path, trouble="is damaged or cut short ({}); copy it again")
    with np.errstate(over="ignore"):
        # As nnU-Net has it: a double may be beyond what a float holds.
        return bool(np.isfinite(voxels.astype(np.float32)).all())


def _voxels(path: str) -> Any:
    import nibabel
    import numpy as np
    import SimpleITK

    if path.endswith((".nii", ".nii.gz")):
        image: Any = nibabel.load(path)
        return np.asanyarray(image.dataobj)
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
