"""What a study will use on this machine and what is missing. Looks only; imports neither Ray nor nnU-Net.

`doctor`: what will be used here and what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from study.buckets.storage import local
from study.cli.options import add_data_option
from study.common.errors import StudyError
from study.common.machine import cpu_name, usable_cores
from study.common.terminal import say
from study.nnunet.datasets import PREPARED_VARIABLE, RAW_VARIABLE, data_paths, find_dataset

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

OLDEST_PYTHON = (3, 11)
PROJECT, STOCK = "pgps-study", "nnunetv2"
RAPL = Path("/sys/class/powercap")
SHARED_MEMORY = Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup")
# Data workers hand batches over in shared memory; containers often have 64 MiB.
SMALL_SHARED_MEMORY_BYTES = 512 * 2**20
LITTLE_FREE_BYTES = 10 * 2**30


class Verdict(str, Enum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the examination: what was looked at, what was found, what to do about it."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


def examine(data: Path | None, out: Path) -> list[Finding]:
    """Everything worth knowing before a study starts.

    Args:
        data: as given to `--data`, None for nnU-Net's variables.
        out: where a study would be kept.
    """
    parts = (_python(), _packages(), _processor(), _memory(), _gpus(), _energy(), _ray(), _storage(out), _data(data))
    return [finding for part in parts for finding in part]


def _python() -> Iterator[Finding]:
    wanted = ".".join(map(str, OLDEST_PYTHON))
    fit = sys.version_info[:2] >= OLDEST_PYTHON
    yield _finding(
        "Python", fit, f"{platform.python_version()} at {sys.executable}", f"install Python {wanted} or newer"
    )


def _packages() -> Iterator[Finding]:
    remedy = "pip install -c constraints.txt -e ."
    try:
        wanted = required_versions()
    except ImportError as error:  # also when the metadata of a package is not found
        yield _finding(str(error.name), False, "not installed", remedy)
        return
    for package, versions in sorted(wanted.items()):
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            yield _finding(package, False, f"not installed, needed is {versions or 'any'}", remedy)
            continue
        fit = versions.contains(found, prereleases=True)
        yield _finding(package, fit, found if fit else f"{found}, needed is {versions}", remedy)


def required_versions() -> dict[str, SpecifierSet]:
    """Versions that work, by package: what this project declares, narrowed by what nnU-Net declares.

    Raises:
        ImportError: this project, nnU-Net or `packaging` is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    wanted: dict[str, SpecifierSet] = {}
    for project in (PROJECT, STOCK):
        for requirement in map(Requirement, metadata.requires(project) or ()):
            in_force = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if in_force and (project == PROJECT or requirement.name in wanted):
                wanted[requirement.name] = wanted.get(requirement.name, SpecifierSet()) & requirement.specifier
    return wanted


def _processor() -> Iterator[Finding]:
    cores, limit = usable_cores(), container_cores(CGROUP)
    found = f"{cpu_name()}, {cores} usable of {os.cpu_count()}"
    if limit is not None and limit < cores:
        found += f", of which the container's limit serves {limit:g}"
    remedy = f"trials would run on {cores} cores and wait for each other: give --cpus {max(1, int(limit or 1))}"
    yield _note("CPU", limit is None or limit >= cores, found, remedy)


def container_cores(cgroup: Path) -> float | None:
    """Cores that a control group's quota allows, None without one. Knows version 2 and version 1."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # `max` is no number: no limit
        return None


def _memory() -> Iterator[Finding]:
    try:
        size = shutil.disk_usage(SHARED_MEMORY).total
    except OSError:
        return
    remedy = "give the container more (docker --shm-size), or use --data-workers 0"
    yield _note("shared memory", size >= SMALL_SHARED_MEMORY_BYTES, f"{_bytes(size)} at {SHARED_MEMORY}", remedy)


def _gpus() -> Iterator[Finding]:
    try:
        import torch

        names = [
            f"{torch.cuda.get_device_name(i)} ({_bytes(torch.cuda.get_device_properties(i).total_memory)})"
            for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
        ]
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built for the CPU"
    except (ImportError, OSError, RuntimeError) as error:
        yield _finding("GPU", False, f"torch does not load: {error}", "reinstall torch")
        return
    found = "; ".join(names) or f"none ({built})"
    yield _note("GPU", bool(names), found, "trials train on the CPU: small plans and few iterations, or find a GPU")


def _energy() -> Iterator[Finding]:
    readable = any(os.access(path, os.R_OK) for path in RAPL.glob("*/energy_uj")) if RAPL.is_dir() else False
    cpu = "measured (RAPL)" if readable else "estimated from load"
    yield _note("energy of CPU", readable, cpu, f"make {RAPL}/*/energy_uj readable, where the machine has it")
    yield Finding(subject="energy of RAM", verdict=Verdict.NOTE, found="estimated from its size, always")
    gpus = _nvml_gpus()
    if gpus is None:
        remedy = "give the driver's NVML library to the container (NVIDIA_DRIVER_CAPABILITIES=compute,utility)"
        yield _note("energy of GPU", False, "unmeasured: NVML does not answer", remedy)
    elif gpus == 0:
        yield Finding(subject="energy of GPU", verdict=Verdict.NOTE, found="absent")
    else:
        yield Finding(subject="energy of GPU", verdict=Verdict.OK, found=f"measured (NVML) on {gpus} GPUs")


def _nvml_gpus() -> int | None:
    """GPUs that NVML sees; 0 without a driver, None when it cannot be asked."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError_LibraryNotFound:
        return 0
    except pynvml.NVMLError:
        return None


def _ray() -> Iterator[Finding]:
    address = os.environ.get("RAY_ADDRESS")
    found = f"RAY_ADDRESS is {address}" if address else "a local one is started for each run, on loopback"
    yield Finding(subject="Ray cluster", verdict=Verdict.OK, found=found)


def _storage(out: Path) -> Iterator[Finding]:
    folder = out.expanduser().resolve()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = existing.is_dir() and os.access(existing, os.W_OK)
    yield _finding("study folder", writable, str(folder), f"{existing} cannot be written: name another --out")
    remedy = "a trial keeps a model and its predictions of the validation fold; name an --out with more room"
    yield _free_space("room for the study", existing, remedy)


def _free_space(subject: str, folder: Path, remedy: str) -> Finding:
    free = shutil.disk_usage(folder).free
    return _note(subject, free >= LITTLE_FREE_BYTES, _bytes(free), remedy)


def _data(data: Path | None) -> Iterator[Finding]:
    for variable in (RAW_VARIABLE, PREPARED_VARIABLE):
        value = os.environ.get(variable)
        yield Finding(subject=variable, verdict=Verdict.OK, found=value or "not set, --data is needed")
    try:
        paths = data_paths(data)
    except StudyError as error:
        yield Finding(subject="datasets", verdict=Verdict.NOTE, found="nowhere to look", remedy=str(error))
        return
    if paths.preprocessed.is_dir():
        yield _free_space("room for data", paths.preprocessed, "preparing writes every image once more, as float32")
    names = sorted(path.name for path in paths.preprocessed.glob("Dataset*_*") if path.is_dir())
    if not names:
        remedy = "python -m study prepare"
        yield Finding(subject="datasets", verdict=Verdict.NOTE, found=f"none in {paths.preprocessed}", remedy=remedy)
    for name in names:
        try:
            plans = find_dataset(paths, name).plans_names()
            yield _note(name, bool(plans), f"plans {', '.join(plans) or 'none'}", "python -m study prepare")
        except StudyError as error:
            yield Finding(subject=name, verdict=Verdict.NOTE, found=str(error), remedy="python -m study prepare")


def _finding(subject: str, fit: bool, found: str, remedy: str) -> Finding:
    return _judged(subject, Verdict.OK if fit else Verdict.MISSING, found, remedy)


def _note(subject: str, fit: bool, found: str, remedy: str) -> Finding:
    return _judged(subject, Verdict.OK if fit else Verdict.NOTE, found, remedy)


def _judged(subject: str, verdict: Verdict, found: str, remedy: str) -> Finding:
    return Finding(subject=subject, verdict=verdict, found=found, remedy="" if verdict is Verdict.OK else remedy)


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


EXAMPLES = """\
  python -m study doctor
  python -m study doctor --data data --out studies/hippo
  python -m study doctor --json
"""
SOMETHING_MISSING = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `doctor`."""
    add_data_option(parser)
    parser.add_argument("--out", type=local, default=Path("studies"), metavar="DIR", help="default: studies")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per line of the table")


def run(args: argparse.Namespace) -> int:
    """Examine and print; 1 when something required is missing."""

    findings = examine(args.data, args.out)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            say(f"{finding.verdict.value:8} {finding.subject:20} {finding.found}")
            if finding.remedy:
                say(f"{'':8} {'':20} -> {finding.remedy}")
    return SOMETHING_MISSING if any(finding.verdict is Verdict.MISSING for finding in findings) else 0
