"""What a result rests on besides its specification: code and libraries, labels, reference segmentations, files.

A *subject* is one such thing of one dataset, named in words that stand in messages; inputs are subject -> SHA-256.
Every attempt at a trial records its inputs, and so does a study. Two records agree when the subjects that both have
agree. They are no part of a trial's name, so that trials from before they were recorded keep theirs: what has changed
is refused where the old result would have been returned or gone on with.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from study import __version__
from study.common import files
from study.common.errors import LedgerError, MissingDataError
from study.common.serialize import sha256_of_json
from study.nnunet.datasets import PreparedDataset
from study.nnunet.plans import NetworkPlan
from study.store.ledger import Ledger
from study.store.prediction import PREVIOUS_STAGE
from study.store.trial_folder import TrialFolder

# Raised by whoever changes what a specification trains to, bit for bit on one machine: `tests/golden` holds weights of
# every kind of training. Studies begun under another one are refused.
TRAINING_VERSION = 1
# Studies from before there was a number recorded a digest of the code; that of this code is version 1.
EARLIER_CODE = {"1169b7d36e92": 1}
DECIDING_LIBRARIES = (
    "nnunetv2",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "batchgenerators",
    "batchgeneratorsv2",
    "acvl-utils",
    "dynamic-network-architectures",
)
RECORDED_LIBRARIES = ("codecarbon", "ray", "optuna")
CODE = "code"
REMEDY = "restore what was there, or name another --out"


def deciding_versions() -> dict[str, str]:
    """Versions of what decides a result: our code, the libraries, and Python without its patch level."""
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}", CODE: str(TRAINING_VERSION), **_installed(DECIDING_LIBRARIES)}


def recorded_versions() -> dict[str, str]:
    """Versions that are kept with every attempt: what decides its result, and what measured and ran it."""
    return {**deciding_versions(), "pgps-study": __version__, **_installed(RECORDED_LIBRARIES)}


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def version_changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, in words, one item each; what was not recorded then is passed over."""
    known = {**then, CODE: str(EARLIER_CODE.get(then[CODE], then[CODE]))} if CODE in then else then
    names = {CODE: "this project's training"}
    changed = [name for name, version in now.items() if known.get(name, version) != version]
    return [f"{names.get(name, name)} {now[name]}, was {known[name]}" for name in changed]


def trial_inputs(dataset: PreparedDataset, plan: NetworkPlan, fold: int, previous_stage: Path | None) -> dict[str, str]:
    """Subject -> SHA-256 of what a trial of a fold reads, a cascade the previous stage's segmentations among it.

    Raises:
        MissingDataError: the preprocessed cases cannot be read. Of references that are not there nothing is said.
    """
    split = dataset.split(fold)
    inputs: dict[str, str | None] = {
        description_subject(dataset.name): description_sha256(dataset.description),
        f"reference segmentations of {dataset.name} fold {fold}": _content(dataset.references(split.validation)),
        files_subject(dataset, plan): sha256_of_json(preprocessed_sizes(dataset.folder / plan.data_identifier)),
    }
    if previous_stage is not None and plan.previous_stage is not None:
        cases = {*split.training, *split.validation}
        subject = f"{PREVIOUS_STAGE} {plan.configuration}, {dataset.name} fold {fold}"
        inputs[subject] = _content([path for path in previous_stage.iterdir() if path.stem in cases])
    return {subject: sha256 for subject, sha256 in inputs.items() if sha256 is not None}


def description_subject(dataset: str) -> str:
    """How a dataset's labels and what else nnU-Net reads of its dataset.json are called."""
    return f"labels, channels or file ending in dataset.json of {dataset}"


def files_subject(dataset: PreparedDataset, plan: NetworkPlan) -> str:
    """How a configuration's preprocessed files are called."""
    return f"preprocessed files of {dataset.name}/{plan.data_identifier}"


def description_sha256(description: Mapping[str, Any]) -> str:
    """Of what decides a training in a dataset.json: label values and regions in order, their number of channels, files.

    Names of labels decide nothing but for `ignore`; their order matters where regions are trained.
    """
    labels = [[name == "ignore", value] for name, value in description["labels"].items()]
    if not any(isinstance(value, list) for _, value in labels):
        labels.sort(key=str)
    return sha256_of_json(
        {
            "labels": labels,
            "regions_class_order": description.get("regions_class_order"),
            "channels": len(description.get("channel_names") or description.get("modality") or ()),
            "file_ending": description.get("file_ending"),
            "reader": description.get("overwrite_image_reader_writer"),
        }
    )


def preprocessed_sizes(folder: Path, *, caches: bool = False) -> dict[str, int]:
    """Names and sizes of preprocessed files: other content compresses to another size, and reading all takes minutes.

    What nnU-Net unpacks beside its `.npz` files is left out, unless with `caches`.

    Raises:
        MissingDataError: the folder cannot be read.
    """
    try:
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    except OSError as error:
        raise MissingDataError(f"{folder} cannot be read ({error.strerror}); run `python -m study prepare`") from error
    packed = {name.removesuffix(".npz") for name in sizes if name.endswith(".npz")}
    unpacked = {f"{case}{kind}.npy" for case in packed for kind in ("", "_seg")}
    return {name: size for name, size in sizes.items() if caches or name not in unpacked}


def changed_inputs(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Subjects that both have and that are not the same."""
    return sorted(subject for subject in before.keys() & now.keys() if before[subject] != now[subject])


def check_trial_inputs(folder: TrialFolder, now: Mapping[str, str]) -> None:
    """Raise LedgerError when a trial was begun with other inputs."""
    records = [header.inputs for header in folder.attempts()]
    changed = {subject for before in records or [{}] for subject in changed_inputs(before or _copied(folder), now)}
    if changed:
        raise LedgerError(
            f"trial {folder.trial_id} was trained with other {' and other '.join(sorted(changed))}; {REMEDY}"
        )


def check_neighbours(ledger: Ledger, folders: Iterable[TrialFolder], now: Mapping[str, str]) -> None:
    """Raise LedgerError when a trial of the same study was made with other inputs: one table cannot hold both."""
    for folder in folders:
        changed = [subject for header in folder.attempts()[-1:] for subject in changed_inputs(header.inputs, now)]
        if changed:
            raise LedgerError(
                f"{ledger.root} holds trial {folder.trial_id}, made with other {' and other '.join(changed)}; {REMEDY}"
            )


def _copied(folder: TrialFolder) -> dict[str, str]:
    """What nnU-Net's copy of dataset.json in a trial's results says of one from before inputs were recorded."""
    inputs = {}
    for path in folder.results_path.glob("*/*/dataset.json"):
        try:
            inputs[description_subject(path.parts[-3])] = description_sha256(files.read_json(path))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return inputs


def _content(paths: Iterable[Path]) -> str | None:
    """SHA-256 over names and content; None when a file cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in sorted(paths):
            digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    except OSError:
        return None
    return digest.hexdigest()
