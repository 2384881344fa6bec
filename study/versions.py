"""Which code and which libraries turn a specification into a result, and everything else worth recording beside it."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata

from study import __version__

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


def deciding_versions() -> dict[str, str]:
    """Versions of what decides a result: our code, the libraries, and Python without its patch level."""
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}", CODE: str(TRAINING_VERSION), **_installed(DECIDING_LIBRARIES)}


def recorded_versions() -> dict[str, str]:
    """Versions that are kept with every attempt: what decides its result, and what measured and ran it."""
    return {**deciding_versions(), "pgps-study": __version__, **_installed(RECORDED_LIBRARIES)}


def version_changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, in words, one item each.

    Args:
        then: recorded versions, of these and perhaps other things.
        now: versions of what matters; of those, what was not recorded is passed over.
    """
    known = {**then, CODE: str(EARLIER_CODE.get(then[CODE], then[CODE]))} if CODE in then else then
    changed = [name for name, version in now.items() if known.get(name, version) != version]
    return [f"{_name(name)} {now[name]}, was {known[name]}" for name in changed]


def _name(name: str) -> str:
    return "this project's training" if name == CODE else name


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
