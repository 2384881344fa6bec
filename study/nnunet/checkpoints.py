"""Checkpoints that survive a crash at any byte: written aside and renamed, the previous one kept until then.

They are pickles, and reading a pickle runs what is in it: only files that lie in the trial's own folder are read.

Three names, newest first: `checkpoint_final.pth` (training done), `checkpoint_latest.pth`, `checkpoint_previous.pth`.
They are nnU-Net's own format with one more key, so stock nnU-Net predicts with the final one.

A trained configuration as stock nnU-Net keeps one, in a zip for `nnUNetv2_install_pretrained_model_from_zip`.

    DATASET/nnUNetTrainer__PLANS__CONFIGURATION/
      plans.json, dataset.json, dataset_fingerprint.json     as the trials used them
      MODEL_CARD.md
      fold_K/checkpoint_final.pth, progress.png
      fold_K/validation/summary.json and the segmentations, which `nnUNetv2_find_best_configuration` reads

A trial's trainer differs from nnU-Net's in how it trains alone, so nnU-Net's own class loads its weights.
Postprocessing is not there: `nnUNetv2_find_best_configuration` determines it, with the labels, which do not travel.
"""

from __future__ import annotations

import io
import shlex
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from study.common import files
from study.common.errors import LedgerError, MissingDataError, TrialInterrupted
from study.common.files import sync_folder, write_bytes
from study.nnunet import checkpoints
from study.nnunet.plans import read_plan
from study.nnunet.torch_tools import state_sha256
from study.store.prediction import CHECKPOINT, STOCK_TRAINER, TRAINER_NAME
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder

FINAL, LATEST, PREVIOUS = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_previous.pth"
STATE_KEY = "pgps_study"
# Write at the end of an epoch when that costs at most this share of the time since the last checkpoint …
LARGEST_SHARE = 0.05
# … and in any case when this much work would be lost.
LONGEST_INTERVAL_SECONDS = 300.0


class CheckpointClock:
    """Says when the next checkpoint is due, from what the last one cost."""

    def __init__(self) -> None:
        self._last_written = time.monotonic()
        self._cost_seconds = 0.0

    def due(self, *, epoch_ended: bool) -> bool:
        """Whether to write now: at the end of short epochs each time, within long ones every few minutes."""
        waited_seconds = time.monotonic() - self._last_written
        if waited_seconds >= LONGEST_INTERVAL_SECONDS:
            return True
        return epoch_ended and self._cost_seconds <= LARGEST_SHARE * waited_seconds

    def written(self, cost_seconds: float) -> None:
        """Note that a checkpoint was written, and how long that took."""
        self._last_written = time.monotonic()
        self._cost_seconds = cost_seconds


def save(folder: Path, checkpoint: dict[str, Any], *, final: bool) -> None:
    """Write a checkpoint durably; the older ones go only after it is on disk.

    Raises:
        DiskFullError: there is no room; the older ones are as they were.
    """
    latest, previous, fresh = folder / LATEST, folder / PREVIOUS, folder / f".{LATEST}.new"
    # In memory first: what goes wrong while torch writes is not always an error that says what.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    if final:
        write_bytes(folder / FINAL, content.getbuffer())
        for older in (latest, previous, fresh):
            older.unlink(missing_ok=True)
        return
    write_bytes(fresh, content.getbuffer())
    if latest.exists():
        latest.replace(previous)
    fresh.replace(latest)
    sync_folder(folder)


def newest_readable(folder: Path, report: Callable[[str], None], *, inside: Path | None = None) -> Path | None:
    """The newest checkpoint that can be read whole; the others are reported in one line each and passed over.

    Links must not leave `inside`, the trial's folder; if it is not given, `folder` itself.

    Raises:
        LedgerError: a checkpoint has another name somewhere else.
    """
    for path in (folder / name for name in (FINAL, LATEST, PREVIOUS)):
        if not path.exists():
            continue
        if not path.resolve().is_relative_to((inside or folder).resolve()):
            report(f"{path.name} is not read: it is a link to {path.resolve()}, outside the trial's folder")
            continue
        if path.stat().st_nlink > 1:
            here, copy = shlex.quote(str(path)), shlex.quote(f"{path}.own")
            raise LedgerError(
                f"{path} is a hard link, so it may be somebody else's, and is not read; if you trust it, make it a "
                f"file of its own: cp {here} {copy} && mv {copy} {here}"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=False)[STATE_KEY]
            if not isinstance(state, dict):
                raise TypeError(f"no {STATE_KEY}")
            return path
        except TrialInterrupted:
            raise
        except Exception as error:  # a damaged pickle may raise anything
            report(f"{path.name} cannot be read ({type(error).__name__}), trying an older checkpoint")
    return None


CARD = "MODEL_CARD.md"
PLANS, DESCRIPTION, FINGERPRINT = "plans.json", "dataset.json", "dataset_fingerprint.json"
# The same trials give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def dataset_description(trial: TrialFolder) -> dict[str, Any]:
    """nnU-Net's dataset.json as a trial used it.

    Raises:
        MissingDataError: the trial's model is not there.
    """
    return dict(_document(_model_folder(trial) / DESCRIPTION))


def write_model(trials: Sequence[TrialFolder], card: str, out: Path) -> None:
    """Write the zip.

    Args:
        trials: finished ones of one configuration, each of another fold.
        card: the model card, Markdown.
        out: the file, replaced whole.

    Raises:
        MissingDataError: a part of a model is not there.
        LedgerError: a checkpoint or the plans are not those that the trial recorded.
    """
    # All is looked at before anything is written; checkpoints, which are large, one after another.
    members = [*_shared(trials), *(each for trial in trials for each in _of_fold(trial))]
    spec = trials[0].spec()
    root = f"{spec.dataset}/{STOCK_TRAINER}__{spec.plans}__{spec.configuration}"

    def write(handle: IO[bytes]) -> None:
        with zipfile.ZipFile(handle, "w") as archive:
            _put(archive, f"{root}/{CARD}", card.encode())
            for name, path in members:
                _put(archive, f"{root}/{name}", path.read_bytes())
            for trial in trials:
                _put(archive, f"{root}/fold_{trial.spec().fold}/{CHECKPOINT}", _checkpoint(trial))

    files.write_atomically(out, write)


def _shared(trials: Sequence[TrialFolder]) -> Iterator[tuple[str, Path]]:
    """What the folds have in common, which must be the same in all of them."""
    folders = [_model_folder(trial) for trial in trials]
    for trial, folder in zip(trials, folders, strict=True):
        spec = trial.spec()
        if read_plan(folder / PLANS, spec.configuration).sha256 != spec.plans_sha256:
            raise LedgerError(f"{folder / PLANS} is not the plan that trial {trial.trial_id} was trained with")
    for name in (PLANS, DESCRIPTION, FINGERPRINT):
        if any(_document(folder / name) != _document(folders[0] / name) for folder in folders[1:]):
            names = ", ".join(trial.trial_id for trial in trials)
            raise LedgerError(f"{name} differs between the trials {names}: their models do not belong together")
        yield name, folders[0] / name


def _of_fold(trial: TrialFolder) -> Iterator[tuple[str, Path]]:
    folder = _fold_folder(trial)
    description = _document(_model_folder(trial) / DESCRIPTION)
    validation = folder / "validation"
    if not (validation / "summary.json").is_file():
        raise _gone(trial, validation / "summary.json")
    for path in sorted(validation.iterdir()):
        if path.name == "summary.json" or path.name.endswith(str(description["file_ending"])):
            yield f"{folder.name}/validation/{path.name}", path
    # nnU-Net's own export has it; it shows a curve and is needed by nothing.
    if (folder / "progress.png").is_file():
        yield f"{folder.name}/progress.png", folder / "progress.png"


def _checkpoint(trial: TrialFolder) -> bytes:
    """nnU-Net's own checkpoint of the trial's: without our position in the training, and by the name of its class."""
    import torch

    folder, problems = _fold_folder(trial), list[str]()
    path = checkpoints.newest_readable(folder, problems.append, inside=trial.path)
    if path is None or path.name != CHECKPOINT:
        raise MissingDataError(f"trial {trial.trial_id} has no readable {CHECKPOINT}: {'; '.join(problems) or folder}")
    state = torch.load(path, map_location="cpu", weights_only=False)
    result = trial.result()
    if result is None or state_sha256(state["network_weights"]) != result.weights_sha256:
        raise LedgerError(f"{path} has other weights than those whose Dice trial {trial.trial_id} recorded")
    del state[checkpoints.STATE_KEY]
    content = io.BytesIO()
    torch.save({**state, "trainer_name": STOCK_TRAINER}, content)
    return content.getvalue()


def _model_folder(trial: TrialFolder) -> Path:
    spec, source = trial.spec(), trial.imported()
    if source is not None:
        raise MissingDataError(f"trial {trial.trial_id} was imported: its model is nnU-Net's own, in {source.path}")
    folder = trial.results_path / spec.dataset / f"{TRAINER_NAME}__{spec.plans}__{spec.configuration}"
    if not (folder / PLANS).is_file():
        raise _gone(trial, folder / PLANS)
    return folder


def _fold_folder(trial: TrialFolder) -> Path:
    return _model_folder(trial) / f"fold_{trial.spec().fold}"


def _gone(trial: TrialFolder, path: Path) -> MissingDataError:
    copied = "copy the study with its results, or train the trial anew"
    return MissingDataError(f"the model of trial {trial.trial_id} is not here: no {path}; {copied}")


def _document(path: Path) -> Mapping[str, Any]:
    try:
        return dict(files.read_json(path))
    except FileNotFoundError:
        raise MissingDataError(f"no {path}: nnU-Net needs it beside the model") from None
    except (ValueError, TypeError) as error:
        raise MissingDataError(f"{path} is not readable JSON: {error}") from error


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=_TIME)
    entry.external_attr = 0o644 << 16
    # Weights and compressed images do not get smaller.
    stored = name.endswith((".pth", ".png", ".gz"))
    entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def previous_stage(trial: TrialFolder) -> str | None:
    """The configuration whose predictions a cascade's model needs; None for any other."""
    spec: TrialSpec = trial.spec()
    return read_plan(_model_folder(trial) / PLANS, spec.configuration).previous_stage
