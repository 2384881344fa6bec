"""Which code and which libraries turn a specification into a result, and everything else worth recording beside it."""

from __future__ import annotations

import ast
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from study import __version__
from study.plain import sha256_of_json

# The books, the machine and the display decide no result.
DECIDING_MODULES = (
    *("augmentation", "batches", "cases", "chain", "crops", "cuda_steps", "curriculum", "data_curriculum", "losses"),
    *("one_voxel", "plan", "records", "resampling", "results", "samples", "spans", "specs", "steps", "stopping"),
    *("stretch", "task", "trainer", "transforms", "trial"),
)
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
CODE_LENGTH = 12


@cache
def code_sha256() -> str:
    """SHA-256 of the deciding modules' syntax trees, in which comments, docstrings and layout do not count."""
    folder = Path(__file__).parent
    return sha256_of_json(
        {name: _tree((folder / f"{name}.py").read_text(encoding="utf-8")) for name in DECIDING_MODULES}
    )


def deciding_versions() -> dict[str, str]:
    """Versions of what decides a result: our code, the libraries, and Python without its patch level."""
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}", CODE: code_sha256()[:CODE_LENGTH], **_installed(DECIDING_LIBRARIES)}


def recorded_versions() -> dict[str, str]:
    """Versions that are kept with every attempt: what decides its result, and what measured and ran it."""
    return {**deciding_versions(), "pgps-study": __version__, **_installed(RECORDED_LIBRARIES)}


def version_changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, in words, one item each.

    Args:
        then: recorded versions, of these and perhaps other things.
        now: versions of what matters; of those, what was not recorded is passed over.
    """
    changed = [name for name, version in now.items() if then.get(name, version) != version]
    return [f"{_name(name)} {now[name]}, was {then[name]}" for name in changed]


def _name(name: str) -> str:
    return "this project's training code" if name == CODE else name


def _installed(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _tree(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(body[0]):
            del body[0]
    return ast.dump(tree)


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
