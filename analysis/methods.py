"""Which published scheme a trained curriculum is, by its stage table and not by the name it was started from."""

from __future__ import annotations

import json
from dataclasses import replace

from study.curriculum import SCHEMES, resolve
from study.plain import sha256_of_json
from study.records import TRIAL_ID_LENGTH, TrialSpec

OTHER = "other"
METHOD_LABELS = {
    "cps": "CPS",
    "pgps": "PGPS",
    "pgps+": "PGPS+",
    "rpss": "RPSS",
    "efficiency": "Efficiency",
    "performance": "Performance",
    OTHER: "Searched",
}
"""Names for people, in the order of legends. `Searched` is every curriculum that no publication names."""


def method_of(spec: TrialSpec) -> str:
    """The published scheme with this very stage table at the same budget and allocation, else `other`.

    A point of the search space that happens to resolve to constant patch size is CPS. Where several schemes resolve to
    the same table, the one that the trial was started from is taken.
    """
    if spec.curriculum.is_constant:
        return "cps"
    names = sorted(SCHEMES, key=lambda name: name != spec.scheme)
    return next((name for name in names if _is_scheme(spec, name)), OTHER)


def point_id(spec: TrialSpec) -> str:
    """Identity of a configuration: that of a trial without fold, seed and what follows from them alone."""
    identity = spec.identity()
    for replicated in ("fold", "seed", "split_sha256"):
        del identity[replicated]
    identity["curriculum"].pop("seed", None)
    if spec.curriculum.random_draws:
        for stage in identity["curriculum"]["stages"]:
            del stage["first_iteration"], stage["iterations"]
    return sha256_of_json(identity)[:TRIAL_ID_LENGTH]


def stage_table(spec: TrialSpec) -> str:
    """The resolved stages as a JSON list of patch_size, batch_size, first_iteration and iterations."""
    rows = [
        {
            "patch_size": list(stage.patch_size),
            "batch_size": stage.batch_size,
            "first_iteration": stage.first_iteration,
            "iterations": stage.iterations,
        }
        for stage in spec.curriculum.stages
    ]
    return json.dumps(rows, separators=(",", ":"))


def _is_scheme(spec: TrialSpec, name: str) -> bool:
    axes = replace(SCHEMES[name], budget=spec.axes.budget, allocation=spec.axes.allocation)
    if spec.curriculum.random_draws or axes.order == "random":
        # Random tables differ by their draws, so the axes are compared.
        return axes == spec.axes
    training = spec.training
    same = resolve(
        spec.curriculum.geometry, axes, epochs=training.epochs, iterations_per_epoch=training.iterations_per_epoch
    )
    return same.stages == spec.curriculum.stages
