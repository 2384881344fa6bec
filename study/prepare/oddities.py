"""What nnU-Net only warns of, or does not see, in a raw dataset: a line for each kind, with the first file.

Geometry is read from headers. Voxels that are no finite number can only be in floating-point images, so only those are
read once more; what reads NIfTI for nnU-Net turns some of them into 0 without a word.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.errors import DataIntegrityError
from study.integrity import training_cases

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
