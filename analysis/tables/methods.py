"""Which named method a trained curriculum is, by its stage table and not by the name it was started from.

A training that starts on some of the cases follows the data curriculum (PDL) beside that of its patches: `pdl` with a
constant patch, `pdl+pgps` with the patches of PGPS, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeAlias

from study.common.serialize import canonical, sha256_of_parts
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum, Stage, resolve
from study.curriculum.schemes import SCHEMES, Axes
from study.store.specification import TRIAL_ID_LENGTH, TrialSpec

Shapes: TypeAlias = list[tuple[Any, ...]]
_COMPACT = json.JSONEncoder(separators=(",", ":"))
OTHER = "other"
IMPORTED = "imported"
PDL = "pdl"
CONSTANT = "cps"
BESIDE_SCHEME = ("budget", "allocation", "pdl_fraction", "pdl_epochs", "pdl_metric")
"""Axes that make no other scheme of one."""
_PATCH_LABELS = {**{name: scheme.label for name, scheme in SCHEMES.items()}, OTHER: "Searched"}


def with_data_curriculum(method: str) -> str:
    """The method that a curriculum of patches becomes when the most dissimilar cases come first."""
    return PDL if method == CONSTANT else f"{PDL}+{method}"


METHOD_LABELS = {
    **_PATCH_LABELS,
    **{
        with_data_curriculum(name): "PDL" if name == CONSTANT else f"PDL × {label}"
        for name, label in _PATCH_LABELS.items()
    },
    IMPORTED: "nnU-Net (imported)",
}
"""Names for people, in the order of legends. `Searched` is every curriculum without a name.

What nnU-Net itself trained is never one with what was trained here, whatever its patch: its time is by its log.
"""
CONSTANT_PATCH = (CONSTANT, PDL, IMPORTED)
"""Methods whose patch does not grow."""


def method_of(spec: TrialSpec) -> str:
    """The named scheme with this very stage table at the same budget and allocation, else `other`.

    A point of the search space that happens to resolve to constant patch size is CPS. Where several schemes resolve to
    the same table, the one that the trial was started from is taken. See the module's text for PDL.
    """
    if spec.imported is not None:
        return IMPORTED
    training, kept = spec.training, [getattr(spec.axes, field) for field in BESIDE_SCHEME]
    length = (training.epochs, training.iterations_per_epoch)
    method = _patch_method(spec.curriculum, spec.scheme, spec.axes.order, length, *kept)
    return method if spec.data is None else with_data_curriculum(method)


@lru_cache(maxsize=4096)
def _patch_method(curriculum: Curriculum, scheme: str, order: str, length: tuple[int, int], *kept: Any) -> str:
    if curriculum.is_constant:
        return CONSTANT
    names, shapes = dict.fromkeys((scheme, *SCHEMES)), _shapes(curriculum.stages)
    return next((name for name in names if _is_scheme(name, curriculum, shapes, order, length, kept)), OTHER)


def point_id(spec: TrialSpec) -> str:
    """Identity of a configuration: that of a trial without fold, seed and what follows from them alone."""
    parts = {name: text for name, text in spec.canonical.items() if name not in ("fold", "seed", "split_sha256")}
    if spec.curriculum.random_draws:
        drawn = ("first_iteration", "iterations")
        curriculum = spec.identity()["curriculum"]
        del curriculum["seed"]
        curriculum["stages"] = [
            {name: value for name, value in stage.items() if name not in drawn} for stage in curriculum["stages"]
        ]
        parts["curriculum"] = canonical(curriculum)
    if spec.data is not None:
        # Every fold has cases of its own.
        data = {**spec.identity()["data"], "cases": [spec.axes.pdl_fraction, spec.axes.pdl_metric]}
        parts["data"] = canonical(data)
    return sha256_of_parts(parts)[:TRIAL_ID_LENGTH]


@lru_cache(maxsize=4096)
def stage_table(curriculum: Curriculum) -> str:
    """The resolved stages as a JSON list of patch_size, batch_size, first_iteration and iterations."""
    rows = [
        {
            "patch_size": list(stage.patch_size),
            "batch_size": stage.batch_size,
            "first_iteration": stage.first_iteration,
            "iterations": stage.iterations,
        }
        for stage in curriculum.stages
    ]
    return _COMPACT.encode(rows)


def _is_scheme(
    name: str, curriculum: Curriculum, shapes: Shapes, order: str, length: tuple[int, int], kept: Sequence[Any]
) -> bool:
    geometry, axes = curriculum.geometry, _axes(name, *kept)
    if curriculum.random_draws or axes.order == "random":
        # Random tables differ by their draws, so what is drawn from is compared.
        return axes.order == order and _whole(geometry, axes, 1, 1) == shapes
    # Budgets are many and share their sizes, unless a training is too short for all of them.
    whole = _whole(geometry, _axes(name, 1.0, *kept[1:]), *length)
    if len(whole) <= curriculum.total_iterations and whole != shapes:
        return False
    return _stages(geometry, axes, *length) == curriculum.stages


def _shapes(stages: Iterable[Stage]) -> Shapes:
    return [(stage.patch_size, stage.batch_size, stage.crops_per_volume) for stage in stages]


@lru_cache(maxsize=4096)
def _whole(geometry: Geometry, axes: Axes, epochs: int, iterations_per_epoch: int) -> Shapes:
    return _shapes(_stages(geometry, axes, epochs, iterations_per_epoch))


@lru_cache(maxsize=4096)
def _axes(name: str, *kept: Any) -> Axes:
    return replace(SCHEMES[name].axes, **dict(zip(BESIDE_SCHEME, kept, strict=True)))


@lru_cache(maxsize=4096)
def _stages(geometry: Geometry, axes: Axes, epochs: int, iterations_per_epoch: int) -> tuple[Stage, ...]:
    """Of a named scheme, which thousands of trials are compared with."""
    return resolve(geometry, axes, epochs=epochs, iterations_per_epoch=iterations_per_epoch).stages
