"""Where the images come from: a folder of the Medical Segmentation Decathlon, or a raw dataset of nnU-Net's.

Either becomes a dataset in nnU-Net's raw folder. A Decathlon task is converted by nnU-Net's own converter, aside, and
renamed into place when whole. A raw dataset is used where it lies, through a symbolic link: it is needed for preparing
only, and a copy would double it. Sources may be read-only. And what is made of them: which plans.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from study.common import files
from study.common.errors import DataIntegrityError, InvalidInputError, MissingDataError, check_choice, check_count
from study.common.serialize import sha256_of_json
from study.nnunet.datasets import DESCRIPTION, RAW_VARIABLE, dataset_id, description_problems
from study.nnunet.plans import DEFAULT_PLANNER, PLANS_OF_PLANNER, SMALL_SUFFIX, SmallPlan

DEFAULT_CONFIGURATIONS = ("3d_fullres",)
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")


@dataclass(frozen=True, kw_only=True)
class PlansRecipe:
    """Which plans are made, and which of their configurations are preprocessed.

    Attributes:
        planner: class of nnU-Net's that plans.
        configurations: names of nnU-Net's configurations.
        plans_name: name of the plans; None takes the planner's own, with `Small` appended for a small plan.
        small: how nnU-Net's plan is made smaller, or None.

    Raises:
        InvalidInputError: an unknown configuration, a name no file can have, or a name needed and not given.
    """

    planner: str = DEFAULT_PLANNER
    configurations: tuple[str, ...] = DEFAULT_CONFIGURATIONS
    plans_name: str | None = None
    small: SmallPlan | None = None

    def __post_init__(self) -> None:
        for name in self.configurations:
            check_choice("--configurations", name, CONFIGURATIONS)
        if not self.configurations:
            raise InvalidInputError(field="--configurations", received="nothing", legal=", ".join(CONFIGURATIONS))
        if self.plans_name is None and self.planner not in PLANS_OF_PLANNER:
            legal = "one of " + ", ".join(PLANS_OF_PLANNER)
            remedy = "or another planner of nnU-Net together with --plans-name"
            raise InvalidInputError(field="--planner", received=self.planner, legal=legal, remedy=remedy)
        # nnU-Net joins trainer, plans and configuration with two underscores.
        if self.plans_name is not None and ("__" in self.plans_name or not re.fullmatch(r"\w[\w-]*", self.plans_name)):
            legal = "letters, digits, - and single underscores"
            raise InvalidInputError(field="--plans-name", received=self.plans_name, legal=legal)

    @property
    def plans(self) -> str:
        """Name of the plans made."""
        return self.plans_name or PLANS_OF_PLANNER[self.planner] + (SMALL_SUFFIX if self.small else "")

    @property
    def planned_as(self) -> str:
        """Name that nnU-Net plans under. Plans made smaller keep the planner's, and with it the preprocessed cases."""
        return PLANS_OF_PLANNER.get(self.planner, self.plans) if self.small else self.plans

    def identity(self) -> dict[str, Any]:
        """What decides the content of the plans file, as JSON. Small plans hold the wanted configurations alone."""
        small = self.small.as_dict() if self.small else None
        wanted = sorted(set(self.configurations)) if self.small else None
        return {"planner": self.planner, "small": small, "small_configurations": wanted}


MARKER_NAME = "pgps_source.json"
HIGHEST_ID = 99999
# Of a file up to this size the content is looked at, of a larger one the time of its last change.
SMALL_FILE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RawFolder:
    """A folder with images and labels.

    Attributes:
        kind: `msd` (Medical Segmentation Decathlon) or `raw` (nnU-Net).
        folder: absolute path.
        dataset: name it gets, `Dataset004_Hippocampus`.
    """

    kind: Literal["msd", "raw"]
    folder: Path
    dataset: str

    def case_count(self) -> int:
        """How many cases have labels, as far as can be seen without reading them."""
        listed = _read_description(self.folder).get("dataset")
        return len(listed) if listed is not None else sum(1 for _ in visible(self.folder / "labelsTr"))


def msd_source(folder: Path, number: int | None = None) -> RawFolder:
    """A task of the Medical Segmentation Decathlon: dataset.json, imagesTr and labelsTr.

    Its id is that in the folder's name unless a number is given.

    Raises:
        InvalidInputError: no such folder, not a task, or no id.
        DataIntegrityError: dataset.json does not describe a task.
    """
    source = _source("msd", folder, r"Task(\d+)_(.+)", number)
    labels = _read_description(source.folder).get("labels")
    if not isinstance(labels, dict) or not all(str(value).isdigit() for value in labels):
        legal = '{"0": "background", "1": …}'
        raise DataIntegrityError(
            f"{source.folder / DESCRIPTION}: labels are {labels!r}, legal are names by value: {legal}"
        )
    return source


def raw_source(folder: Path, number: int | None = None) -> RawFolder:
    """A raw dataset of nnU-Net's: dataset.json, imagesTr and labelsTr, or dataset.json listing files elsewhere.

    Its id is that in the folder's name unless a number is given.

    Raises:
        InvalidInputError: no such folder, no dataset, or no id.
        DataIntegrityError: dataset.json is not as nnU-Net v2 wants it.
    """
    source = _source("raw", folder, r"Dataset(\d{3,5})_(.+)", number)
    for problem in description_problems(_read_description(source.folder)):
        raise DataIntegrityError(f"{source.folder / DESCRIPTION}: {problem}")
    return source


def inventory(folder: Path, *, of_first_version: bool = False) -> str:
    """SHA-256 over names and content of dataset.json, images and labels; of large files size and time stand for it.

    Files that dataset.json lists elsewhere count as well, as nnU-Net finds them. The first version of this project
    recorded names and sizes of what lies in the folder.

    Raises:
        MissingDataError: a file cannot be looked at, as with a link to nothing.
    """
    paths = [folder / DESCRIPTION, *visible(folder / "imagesTr"), *visible(folder / "labelsTr")]
    cases = {} if of_first_version else _read_description(folder).get("dataset") or {}
    for case in cases.values():
        paths += [folder / os.path.expandvars(name) for name in (*case["images"], case["label"])]
    look = _size_of if of_first_version else _fingerprint_of
    try:
        return sha256_of_json([[os.path.relpath(path, folder), look(path)] for path in paths])
    except OSError as error:
        raise MissingDataError(f"{error.filename} cannot be read: {error.strerror}") from error


def is_inventory(recorded: str, folder: Path) -> bool:
    """Whether a folder is as it was recorded, in either form."""
    return recorded in (inventory(folder), inventory(folder, of_first_version=True))


def _size_of(path: Path) -> object:
    return _regular(path).st_size


def _regular(path: Path) -> os.stat_result:
    """Of a pipe or device a reader would wait without end, or for all of the memory."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return found


def _fingerprint_of(path: Path) -> object:
    found = _regular(path)
    if found.st_size > SMALL_FILE_BYTES:
        return [found.st_size, found.st_mtime_ns]
    return [found.st_size, hashlib.sha256(path.read_bytes()).hexdigest()]


def is_converted_from(raw_folder: Path, source: RawFolder) -> bool:
    """Whether a raw dataset was made from this Decathlon task as it is now."""
    marker = raw_folder / MARKER_NAME
    return marker.exists() and is_inventory(files.read_json(marker).get("inventory", ""), source.folder)


def link(source: RawFolder, raw_root: Path) -> None:
    """Make a raw dataset visible in nnU-Net's raw folder."""
    target = raw_root / source.dataset
    if target.exists() and target.resolve() == source.folder:
        return
    target.unlink(missing_ok=True)  # a link to nothing
    target.symlink_to(source.folder, target_is_directory=True)


def convert(source: RawFolder, raw_root: Path, *, workers: int, note: Callable[[str], None]) -> None:
    """Convert a Decathlon task with nnU-Net's converter, whole or not at all; what had to be assumed is noted.

    It sets the variable of nnU-Net's raw folder, and leaves it to the caller to set it anew.
    """
    from nnunetv2.dataset_conversion.convert_MSD_dataset import convert_msd_dataset

    aside, found = conversion_folder(raw_root, source), inventory(source.folder)
    task = _staged_task(source, aside / "source", note)
    os.environ[RAW_VARIABLE] = str(aside)
    convert_msd_dataset(str(task), dataset_id(source.dataset), workers)
    made = aside / source.dataset
    files.write_json(made / MARKER_NAME, {"msd": str(source.folder), "inventory": found})
    made.rename(raw_root / source.dataset)
    shutil.rmtree(aside)


def conversion_folder(raw_root: Path, source: RawFolder) -> Path:
    """Where a task is while it is being converted."""
    return raw_root / f".preparing-{source.dataset}"


def _source(kind: Literal["msd", "raw"], given: Path, pattern: str, number: int | None) -> RawFolder:
    folder = given.expanduser().resolve()
    if not (folder / DESCRIPTION).is_file():
        legal = "a folder with dataset.json, imagesTr and labelsTr"
        raise InvalidInputError(field=f"--{kind}", received=str(given), legal=legal)
    described = _read_description(folder)
    for part in ("imagesTr", "labelsTr"):
        if "dataset" not in described and not (folder / part).is_dir():
            raise MissingDataError(f"--{kind}: {given} has dataset.json but no {part}; the download is incomplete")
    for path in (*visible(folder / "imagesTr"), *visible(folder / "labelsTr")):
        if not path.name.isprintable():
            raise DataIntegrityError(
                f"{path.parent}: {path.name!r} is no name of a case, which is UTF-8; rename the file"
            )
    # Of the path as given: a link's target may have any name.
    folder_name = given.expanduser().absolute().name
    match = re.fullmatch(pattern, folder_name)
    if number is None and match is None:
        legal, remedy = f"a number from 1 to {HIGHEST_ID}", f"the folder's name {folder_name!r} holds none"
        raise InvalidInputError(field="--id", received="nothing", legal=legal, remedy=remedy)
    number = int(match.group(1)) if number is None and match else number
    check_count("--id", number, most=HIGHEST_ID)
    name = match.group(2) if match else folder_name
    if kind == "msd" or not match:
        # nnU-Net's converter splits the name at underscores.
        name = re.sub(r"[^A-Za-z0-9]", "", name) or "Task"
    return RawFolder(kind=kind, folder=folder, dataset=f"Dataset{number:03d}_{name}")


def _staged_task(source: RawFolder, parent: Path, note: Callable[[str], None]) -> Path:
    """A folder of links with all that nnU-Net's converter insists on, which many downloads lack."""
    task = parent / f"Task{dataset_id(source.dataset):03d}_{source.dataset.split('_', 1)[1]}"
    task.mkdir(parents=True)
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        if (source.folder / part).is_dir():
            (task / part).symlink_to(source.folder / part, target_is_directory=True)
        else:
            (task / part).mkdir()
    described = _read_description(source.folder)
    if "modality" not in described:
        described["modality"] = described.get("channel_names") or _assumed_channels(source.folder, note)
    described.setdefault("numTraining", sum(1 for _ in visible(source.folder / "labelsTr")))
    files.write_json(task / DESCRIPTION, {"training": [], "test": [], **described})
    return task


def _assumed_channels(folder: Path, note: Callable[[str], None]) -> dict[str, str]:
    import nibabel

    image: Any = nibabel.load(next(visible(folder / "imagesTr")))
    channels = image.shape[3] if len(image.shape) == 4 else 1
    note("dataset.json names no modality: every image is normalised by itself (z-score), which is wrong for CT")
    return {str(n): f"channel {n}" for n in range(channels)}


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description = files.read_json(folder / DESCRIPTION)
    except (OSError, ValueError) as error:
        raise DataIntegrityError(f"{folder / DESCRIPTION} cannot be read as JSON: {error}") from error
    if not isinstance(description, dict):
        raise DataIntegrityError(f"{folder / DESCRIPTION} holds no JSON object")
    return description


def visible(folder: Path) -> Iterator[Path]:
    """Files of a folder in order, without the leftovers of macOS (`._name`) that real downloads contain."""
    found = folder.iterdir() if folder.is_dir() else ()
    return iter(sorted(p for p in found if not p.name.startswith(".")))
