"""What a calibration measured: one file for each network and kind of hardware, beside the prepared data.

A network is a configuration of a plan with the training settings that change what an iteration costs. Numbers are of
one training alone on the machine; a file of other hardware or another plan is refused, never scaled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from study.common import files
from study.common.errors import InvalidInputError
from study.common.serialize import record_to_json, sha256_of_json
from study.common.setting import settings_of
from study.store.readings import Kwh, MeterInfo, Seconds
from study.store.records import AttemptHeader, Time
from study.store.specification import TrialSpec
from study.store.stored import Stored, Whole, record_from_json
from study.store.training_settings import TrainingSettings

FOLDER = "calibrations"
FORMAT = 1
DECIDE_COSTS = ("normalization", "augmentation_preset")
# What a calibration is at most, in bytes: it is read whole.
_LARGEST_FILE = 2**22
Positive = Annotated[float, Gt(0), Le(1e8)]
Count = Annotated[int, Ge(1), Le(1_000_000)]


@dataclass(frozen=True, kw_only=True)
class Timing(Stored):
    """A unit of work that was repeated: an iteration, a validation batch, a set-up, a validation of a whole fold.

    Attributes:
        seconds: of one, the median over stretches; low_seconds, high_seconds: of the quickest and the slowest stretch.
        count: how many were timed, those that warmed up not counted.
        energy_kwh: of one; None is unmeasured.
    """

    seconds: Positive
    low_seconds: Positive
    high_seconds: Positive
    count: Annotated[Whole, Ge(1)]
    energy_kwh: Kwh | None

    def __post_init__(self) -> None:
        if not self.low_seconds <= self.seconds <= self.high_seconds:
            received = [self.low_seconds, self.seconds, self.high_seconds]
            raise InvalidInputError(field="low, median, high seconds", received=received, legal="in this order")


@dataclass(frozen=True, kw_only=True)
class ShapeTiming(Timing):
    """An iteration of a shape: patch in voxels per axis, samples per batch; peak memory on the card, None on a CPU."""

    patch_size: tuple[Count, ...]
    batch_size: Count
    peak_memory_bytes: Whole | None = None


@dataclass(frozen=True, kw_only=True)
class Calibration(Stored):
    """What was measured on a machine.

    Attributes:
        network: see `network_of`; plans_sha256: of its plans.
        hardware: see `hardware_words`; hostname: where; taken_at: when, in seconds since the epoch.
        versions: of code and libraries; meter: how energy was measured.
        card_memory_bytes: of the GPU, None on a CPU.
        setup, validation, final: a set-up, a validation batch, the final validation of a fold; None was not measured.
        mirroring: whether the final validation predicted with test-time mirroring.
        shapes: an iteration of each.
        left_out: how many shapes there was no time for.
        took_seconds: the calibration as a whole.
    """

    format: Annotated[Whole, Ge(FORMAT), Le(FORMAT)]
    network: tuple[str, ...]
    plans_sha256: str
    hardware: str
    hostname: str
    taken_at: Time
    versions: Mapping[str, str]
    meter: MeterInfo
    card_memory_bytes: Whole | None
    setup: Timing | None
    validation: Timing | None
    final: Timing | None
    mirroring: bool
    shapes: Annotated[tuple[ShapeTiming, ...], MinLen(1)]
    left_out: Whole
    took_seconds: Seconds

    @property
    def kg_per_kwh(self) -> float:
        """Of the grid and the data centre it was measured for."""
        return self.meter.carbon_intensity_kg_per_kwh * self.meter.pue

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        try:
            files.write_json(path, record_to_json(self))
        except OSError as error:
            raise _not_writable(path) from error


def check_writable(path: Path) -> None:
    """Raise InvalidInputError where `Calibration.write` could not, before anything is timed."""
    try:
        files.make_folder(path.parent)
    except OSError as error:
        raise _not_writable(path) from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise _not_writable(path)


def _not_writable(path: Path) -> InvalidInputError:
    legal, remedy = "a file that can be written", "name another one with --out, and with --costs-from later"
    return InvalidInputError(field="--out", received=str(path), legal=legal, remedy=remedy)


def network_of(spec: TrialSpec) -> tuple[str, ...]:
    """Dataset, plans, configuration, and what changes the cost of an iteration where it is not nnU-Net's."""
    known, training = settings_of(TrainingSettings), spec.training
    changed = [name for name in DECIDE_COSTS if getattr(training, name) != known[name].default]
    named = [f"{name}-{getattr(training, name)}" for name in changed]
    return spec.dataset, spec.plans, spec.configuration, *named


def hardware_words(*, device: str, gpu: str, cpu: str, cpus: float, gpus: float = 1.0) -> str:
    """What decides how fast a training is: its card, or the part of one that it shares, or processor; and its cores."""
    share = f"{gpus:g} of " if device == "cuda" and gpus < 1 else ""
    return f"{device}: {share}{gpu or cpu}, {cpus:g} CPUs"


def hardware_of(header: AttemptHeader) -> str:
    """The same of an attempt."""
    gpu = ", ".join(header.gpu_names)
    return hardware_words(device=header.device, gpu=gpu, cpu=header.cpu_name, cpus=header.cpus, gpus=header.gpus or 1.0)


def usual_path(folder: Path, network: Sequence[str], hardware: str) -> Path:
    """Where a calibration is found again.

    Args:
        folder: of the prepared dataset.
        network: what it is of, see `network_of`.
        hardware: likewise, see `hardware_words`.
    """
    return folder / FOLDER / f"{'-'.join(network[1:])}-{sha256_of_json([*network, hardware])[:8]}.json"


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file.

    Raises:
        InvalidInputError: there is none that can be read.
    """
    try:
        return record_from_json(Calibration, files.read_whole(path, most=_LARGEST_FILE))
    except (OSError, ValueError, InvalidInputError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        legal = f"a study, or a file that `calibrate` wrote ({reason})"
        raise InvalidInputError(field="--costs-from", received=str(path), legal=legal) from None


def found_beside(folder: Path) -> Iterator[Calibration]:
    """Those beside a prepared dataset that can be read."""
    for path in sorted((folder / FOLDER).glob("*.json")):
        with suppress(InvalidInputError):
            yield read_calibration(path)
