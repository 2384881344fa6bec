"""A search space: which settings are fixed and which searched, by what searcher, on what data and machine.

A *point* is a plain dictionary from the names of the searched settings to values. `points` lists those that are known
in advance; Optuna proposes its own as it goes.

Defaults that depend on what is prepared are resolved when a study is created, kept in it, and not looked up again. A
second plans file made later then changes nothing, and naming what a default came to is the same study.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from study.common.errors import InvalidInputError, check_choice, check_count, check_name, check_path, check_range
from study.common.machine import MOST_OF_A_NODE
from study.common.trackers import TRACKERS
from study.curriculum.schemes import Axes
from study.nnunet.datasets import DataPaths, find_dataset
from study.search.algorithms import ADAPTIVE, LISTED, SEARCHERS, Searcher, size_of
from study.search.domains import (
    DATASET,
    DEFAULTS,
    PLANS,
    TRAINING_KEYS,
    Choice,
    Domain,
    Fixed,
    PointSettings,
    Scalar,
    as_dataset,
    check_axes,
    data_axes,
    settings_at,
)
from study.store.ledger import RESOLVED, recorded_defaults
from study.store.results import HD95, METRICS, NO_METRICS, NSD, Metrics
from study.store.specification import Energy
from study.store.stopping import ALL, LATE, STOPPING, rung_epochs


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a trial gets of the machine. It decides how fast a study is, not what it finds.

    Attributes:
        cpus: CPU cores of a trial, a fraction allowed; None is a node's cores, shared among its GPUs if it has any.
        gpus: share of one GPU, 0 to 1; None is one where there are GPUs, else 0.
        concurrent: most trials at a time; None is as many as fit.
        data_workers: processes that make batches; None leaves it to the trial.
        compile_cache: folder on each node where its trainings share compiled kernels; None is the user's cache folder.

    Raises:
        InvalidInputError: a field is outside its range.
    """

    cpus: float | None = None
    gpus: float | None = None
    concurrent: int | None = None
    data_workers: int | None = None
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        if self.cpus is not None:
            check_range("resources.cpus", self.cpus, 0, MOST_OF_A_NODE, above_low=True)
        if self.gpus is not None:
            check_range("resources.gpus", self.gpus, 0, 1)
        if self.concurrent is not None:
            check_count("resources.concurrent", self.concurrent)
        if self.data_workers is not None:
            check_count("resources.data_workers", self.data_workers, least=0, most=MOST_OF_A_NODE)
        if self.compile_cache is not None:
            check_path("resources.compile_cache", self.compile_cache)
        if self.compile_cache is not None and not Path(self.compile_cache).is_absolute():
            legal = "an absolute path, the same on each node"
            raise InvalidInputError(field="resources.compile_cache", received=self.compile_cache, legal=legal)


Point = dict[str, Scalar]

OBJECTIVES: Mapping[str, str] = {
    "dice": "max",
    "runtime_seconds": "min",
    "co2_kg": "min",
    "energy_kwh": "min",
    "voxel_share": "min",
    NSD: "max",
    HD95: "min",
}
"""What a searcher may optimise -> `max` or `min`."""
LATE_OBJECTIVES = ("dice", "runtime_seconds", "co2_kg", "energy_kwh")
"""What late stopping knows of: Dice, and costs that grow with iterations and voxels."""
METERED_OBJECTIVES = ("co2_kg", "energy_kwh")
MOST_POINTS = 100_000


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """A study's search space. Defaults are those of the file format, see `document`.

    Attributes:
        name: label of the study.
        searcher: a key of `algorithms.SEARCHERS`; seed: of it.
        trials: number of points; None, for a grid alone, is all.
        objectives: what Optuna optimises, keys of `OBJECTIVES`; empty for the other searchers.
        configuration: nnU-Net's, `3d_fullres`.
        folds, seeds: every point is trained once for each pair; the mean counts.
        resources, energy: what a trial gets of the machine, and how its energy is measured.
        stopping: a key of `stopping.STOPPING`: whether trainings may be stopped late.
        metrics: what is measured beside Dice. More may be asked for later: they come from the stored predictions.
        axes: name -> domain, for every name in `settings.DEFAULTS`, in that order.
        trackers: tracker -> target, of those that are told how trials get on while they run.
        resolved: what a study's defaults came to when it was created, full dataset name -> plans, all of them where
            they are an axis, in the order of `datasets`; empty before they are, see `resolved_space`.

    Raises:
        InvalidInputError: a field is outside its range, or a domain could propose an illegal value.
    """

    name: str
    searcher: str
    trials: int | None
    seed: int
    objectives: tuple[str, ...]
    configuration: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    resources: Resources
    energy: Energy
    axes: Mapping[str, Domain]
    metrics: Metrics = NO_METRICS
    stopping: str = ALL
    trackers: Mapping[str, str] = field(default_factory=dict)
    resolved: Mapping[str, str | list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("name", self.name)
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", self.name):
            raise InvalidInputError(field="name", received=self.name, legal="letters, digits and . _ + -")
        check_choice("searcher", self.searcher, tuple(SEARCHERS))
        check_count("seed", self.seed, least=0)
        _check_numbers("folds", self.folds)
        _check_numbers("seeds", self.seeds)
        check_axes(self.axes)
        self._check_objectives()
        self._check_search()
        check_choice("stopping", self.stopping, tuple(STOPPING))
        if self.stopping == LATE:
            self._check_late_stopping()

    @property
    def searched(self) -> dict[str, Domain]:
        """The axes: settings that are not fixed, in order."""
        return {name: domain for name, domain in self.axes.items() if not isinstance(domain, Fixed)}

    def only(self, fold: int, seed: int) -> SearchSpace:
        """The same with one fold and seed."""
        return replace(self, folds=(fold,), seeds=(seed,))

    @property
    def datasets(self) -> tuple[int | str, ...]:
        """Ids or names of the datasets, empty when none is named yet."""
        return tuple(value for value in self.axes[DATASET].probes() if isinstance(value, int | str))

    def plans_of(self, dataset: int | str, named: str | None = None) -> str | None:
        """Plans of a point on one of `datasets`: those it names, else what the default came to, None before that."""
        came_to = dict(zip(map(str, self.datasets), self.resolved.values(), strict=False)).get(str(dataset))
        return came_to if named is None and isinstance(came_to, str) else named

    @property
    def planned(self) -> list[tuple[int | str, str | None]]:
        """Each dataset with each of its plans, None for the default of what is prepared."""
        names: Any = self.axes[PLANS].probes()
        return [(dataset, self.plans_of(dataset, name)) for dataset in self.datasets for name in names]

    @property
    def data_axes(self) -> list[Axes]:
        """Data curricula that stand for all that the space may propose."""
        return data_axes(self.axes)

    @property
    def method(self) -> Searcher:
        return SEARCHERS[self.searcher]

    def points(self) -> Iterator[Point]:
        """The points that are known in advance, none twice, in an order that depends on the space alone.

        More `trials` add points at the end.

        Raises:
            InvalidInputError: the searcher's points depend on results.
        """
        if self.method.points is None:
            legal = f"{' or '.join(LISTED)} to list points in advance"
            raise InvalidInputError(field="searcher", received=self.searcher, legal=legal)
        return itertools.islice(self.method.points(self.searched, self.seed), self.trials)

    def settings(self, point: Mapping[str, Scalar]) -> PointSettings:
        """The settings that a point means.

        Raises:
            InvalidInputError: the point has other names than the searched ones, or an illegal value.
        """
        if set(point) != set(self.searched):
            legal = "one value for each of " + (", ".join(self.searched) or "no axis")
            raise InvalidInputError(field="point", received=dict(point), legal=legal)
        fixed = {name: domain.value for name, domain in self.axes.items() if isinstance(domain, Fixed)}
        return settings_at({**fixed, **point})

    def identity(self) -> dict[str, Any]:
        """Plain JSON of all that decides which points there are and what they mean.

        Number of trials, resources and trackers are not part of it, so they may change while a study goes on. Settings
        left at their default are not listed, so a later version may add more of them.
        """
        changed = {n: domain.to_json() for n, domain in self.axes.items() if domain != Fixed(DEFAULTS[n])}
        return {
            "searcher": self.searcher,
            "seed": self.seed if self.method.seeded else None,
            "objectives": list(self.objectives),
            PLANS: self.axes[PLANS].to_json(),
            "configuration": self.configuration,
            "folds": sorted(self.folds),
            "seeds": sorted(self.seeds),
            **{f"energy.{name}": value for name, value in asdict(self.energy).items()},
            **({"nsd_tolerance_mm": self.metrics.nsd_tolerance_mm} if NSD in self.objectives else {}),
            **changed,
            **({"stopping": self.stopping} if self.stopping != ALL else {}),
            **({RESOLVED: dict(self.resolved)} if self.resolved else {}),
        }

    def with_overrides(self, **given: Any) -> SearchSpace:
        """The same space with what the command line gave; None leaves a field as it is.

        Args:
            given: fields of the space, of its resources or energy, trackers, `dataset`, `plans`, or settings of the
                training. The last three are fixed then, whatever domain they had, but for plans that are an axis.

        Raises:
            InvalidInputError: as the space itself, and for plans beside an axis of them.
        """
        given = {name: value for name, value in given.items() if value is not None}

        def taken(names: Iterable[str]) -> dict[str, Any]:
            return {name: given.pop(name) for name in names if name in given}

        dataset = {name: Fixed(as_dataset(value)) for name, value in taken([DATASET]).items()}
        plans = {name: Fixed(value) for name, value in taken([PLANS]).items()}
        if plans and isinstance(self.axes[PLANS], Choice):
            legal = f"left out where plans are an axis of the space: {', '.join(map(str, self.axes[PLANS].probes()))}"
            raise InvalidInputError(field="--plans", received=plans[PLANS].value, legal=legal)
        training = {f"training.{name}": Fixed(value) for name, value in taken(TRAINING_KEYS).items()}
        return replace(
            self,
            resources=replace(self.resources, **taken(each.name for each in fields(Resources))),
            energy=replace(self.energy, **taken(each.name for each in fields(Energy))),
            trackers={**self.trackers, **taken(TRACKERS)},
            axes={**self.axes, **dataset, **plans, **training},
            **given,
        )

    def _check_objectives(self) -> None:
        if self.searcher not in ADAPTIVE:
            if self.objectives:
                legal = f"left out unless the searcher is {' or '.join(ADAPTIVE)}"
                raise InvalidInputError(field="objectives", received=list(self.objectives), legal=legal)
            return
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise InvalidInputError(field="objectives", received=list(self.objectives), legal="a list, each one once")
        costs = [objective for objective in self.objectives if objective in self.method.costs]
        if self.method.costs and (
            "dice" not in self.objectives or not 2 <= len(self.objectives) == 1 + len(costs) <= 3
        ):
            legal = f"dice and one or two of {', '.join(self.method.costs)} for the searcher {self.searcher}"
            raise InvalidInputError(field="objectives", received=list(self.objectives), legal=legal)
        for objective in self.objectives:
            check_choice("objectives", objective, tuple(OBJECTIVES))
            if objective == "voxel_share" and PLANS in self.searched:
                legal = "runtime_seconds, energy_kwh or co2_kg with several plans: a share is of the plan's own voxels"
                raise InvalidInputError(field="objectives", received=objective, legal=legal)
            if objective in METRICS and objective not in self.metrics.names:
                legal = f"listed under metrics, too: `metrics: [{objective}]`"
                raise InvalidInputError(field="objectives", received=objective, legal=legal)
            if objective in METERED_OBJECTIVES and self.energy.meter == "none":
                legal = "dice, runtime_seconds or voxel_share while energy.meter is none"
                raise InvalidInputError(field="objectives", received=objective, legal=legal)

    def _check_search(self) -> None:
        """Whether the searcher can work on these axes, and knows when to stop."""
        if self.trials is not None or not self.method.whole:
            check_count("trials", self.trials, most=MOST_POINTS)
        if self.method.whole:
            self._check_grid()
            return
        if isinstance(self.axes[DATASET], Choice):
            legal = f"one dataset for the searcher {self.searcher}; several are an axis of a grid"
            raise InvalidInputError(field="datasets", received=list(self.datasets), legal=legal)
        if not self.searched:
            legal = "grid while no setting of curriculum or training has a list or domain"
            raise InvalidInputError(field="searcher", received=self.searcher, legal=legal)

    def _check_late_stopping(self) -> None:
        """Whether there are curves to go by, and whether what they are about is all that is wanted of a point."""
        others = [name for name in self.objectives if name not in LATE_OBJECTIVES]
        if others:
            legal = f"{', '.join(LATE_OBJECTIVES)} with `stopping: {LATE}`, which knows no other"
            raise InvalidInputError(field="objectives", received=others, legal=legal)
        if any(target is not None for target in self.axes["training.stop_at_dice"].probes()):
            received, legal = self.axes["training.stop_at_dice"].to_json(), f"null with `stopping: {LATE}`"
            raise InvalidInputError(field="training.stop_at_dice", received=received, legal=legal)
        ends: Any = {name: self.axes[f"training.{name}"].probes() for name in ("epochs", "validation_every_epochs")}
        epochs, every = min(ends["epochs"]), max(ends["validation_every_epochs"])
        if not rung_epochs(epochs, every):
            name, received = ("validation_every_epochs", every) if every > 1 else ("epochs", epochs)
            legal = f"such that at least three validations come before the last epoch, with `stopping: {LATE}`"
            raise InvalidInputError(field=f"training.{name}", received=received, legal=legal)

    def _check_grid(self) -> None:
        for name, domain in self.searched.items():
            if domain.values() is None:
                legal = "a value, a list, a choice or integer in a grid"
                remedy = "list the values, or use the searcher random or optuna"
                raise InvalidInputError(field=name, received=domain.to_json(), legal=legal, remedy=remedy)
        if size_of(self.searched) > MOST_POINTS:
            legal, remedy = f"a grid of at most {MOST_POINTS} points", "fix axes, or use random"
            raise InvalidInputError(field="searcher", received=self.searcher, legal=legal, remedy=remedy)


def _check_numbers(field: str, numbers: tuple[int, ...]) -> None:
    if not numbers or len(set(numbers)) < len(numbers):
        raise InvalidInputError(field=field, received=list(numbers), legal="at least one whole number, each once")
    for number in numbers:
        check_count(field, number, least=0)


def resolved_space(space: SearchSpace, paths: DataPaths, header: Mapping[str, Any]) -> SearchSpace:
    """The space with full names of datasets and plans.

    What the defaults came to in a study that is there, by its header, holds.

    Raises:
        MissingDataError: a dataset or plans are not there.
    """
    recorded = recorded_defaults(header)
    resolved: dict[str, str | list[str]] = {}
    names: Any = space.axes[PLANS].probes()
    for written in space.datasets:
        dataset = find_dataset(paths, written)
        before = recorded.get(dataset.name)
        default = before if isinstance(before, str) else None
        chosen = [dataset.choose_plans(name or default) for name in names]
        resolved[dataset.name] = chosen if len(chosen) > 1 else chosen[0]
    if len(resolved) < len(space.datasets):
        legal = f"each one once: they are {', '.join(resolved)}"
        raise InvalidInputError(field="datasets", received=list(space.datasets), legal=legal)
    begun = header.get("space") or {"stopping": space.stopping}
    begun_with = begun.get("searcher", space.searcher)
    same_kind = begun_with in ADAPTIVE and space.searcher in ADAPTIVE
    return replace(
        space,
        resolved=resolved,
        searcher=begun_with if same_kind else space.searcher,
        stopping=begun.get("stopping", ALL),
    )
