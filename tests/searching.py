"""Search spaces, made-up ledgers of them, and trials that end without being trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples import BRAIN, HEADER, HIPPOCAMPUS, LUNG, METER, complete, make_interval
from optuna.trial import FrozenTrial

from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.chain import Geometry
from study.nnunet.plans import NetworkPlan
from study.search.document import space_from
from study.search.optuna_study import Tpe
from study.search.samplers import AdaptiveSampler, Proposal, Sampler, make_sampler
from study.search.space import Point, SearchSpace
from study.search.trials import Lookup, specs
from study.store.ledger import Ledger
from study.store.outcomes import Outcome, outcome
from study.store.specification import TrialSpec
from study.store.trial_folder import TrialFolder, TrialState

MIN_PATCH, STAGES, GROWTH = "curriculum.min_patch", "curriculum.stages", "curriculum.batch_growth"
BUDGET, RATE = "curriculum.budget", "training.initial_learning_rate"
OBJECTIVES = ["dice", "runtime_seconds", "co2_kg"]
OPTUNA_SPACE: dict[str, Any] = {
    "name": "search",
    "searcher": "optuna",
    "trials": 5,
    "datasets": [1],
    "folds": [0, 1],
    "objectives": OBJECTIVES,
    "curriculum": {
        "min_patch": {"uniform": [0, 1]},
        "stages": {"integer": [1, 9]},
        "batch_growth": [0, 0.5, "stepwise"],
    },
    "training": {"epochs": 10, "initial_learning_rate": {"log_uniform": [1e-4, 1e-1]}},
}
RANDOM_SPACE = {**OPTUNA_SPACE, "searcher": "random", "objectives": []}
# Constant patch size has one stage however many are asked for: two points for each trial.
GRID_SPACE: dict[str, Any] = {
    "name": "grid",
    "searcher": "grid",
    "datasets": [1],
    "curriculum": {"scheme": "cps", "stages": [1, 2], "budget": [0.5, 1.0]},
    "training": {"epochs": 10},
}
POINTS: list[Point] = [
    {MIN_PATCH: 0.25, STAGES: 3, GROWTH: "stepwise", RATE: 0.01},
    {MIN_PATCH: 0.0, STAGES: 9, GROWTH: 0, RATE: 0.001},
    {MIN_PATCH: 0.75, STAGES: 2, GROWTH: 0.5, RATE: 0.05},
    {MIN_PATCH: 0.5, STAGES: 4, GROWTH: "stepwise", RATE: 0.02},
]
FINISHED, INFEASIBLE, FAILED = TrialState.FINISHED, TrialState.INFEASIBLE, TrialState.FAILED
UNMEASURED = "unmeasured"


def plan_of(
    geometry: Geometry,
    *,
    dataset: str = "Dataset001_Brain",
    plans: str | None = None,
    configuration: str = "3d_fullres",
) -> NetworkPlan:
    return NetworkPlan(
        dataset=dataset,
        plans=plans or "nnUNetPlans",
        configuration=configuration,
        geometry=geometry,
        data_identifier="x",
        previous_stage=None,
        sha256="p" * 64,
    )


def lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """The brain network's plan, whatever the dataset."""
    return plan_of(BRAIN, plans=plans, configuration=configuration), f"split-{fold}"


GEOMETRIES = {1: BRAIN, 6: LUNG, 4: HIPPOCAMPUS}


def paper_lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """Three geometries of the papers by dataset id, five folds each."""
    if dataset not in GEOMETRIES:
        raise MissingDataError(f"dataset: received {dataset!r}")
    if fold > 4:
        raise InvalidInputError(field="fold", received=fold, legal="0 to 4")
    name = f"Dataset{dataset:03d}_X"
    return plan_of(GEOMETRIES[int(dataset)], dataset=name, plans=plans, configuration=configuration), f"split-{fold}"


def space_of(**changes: Any) -> SearchSpace:
    return space_from({**OPTUNA_SPACE, **changes})


def ledger_of(space: SearchSpace, root: Path) -> Ledger:
    return Ledger.create(root, space=space.identity())


def record(ledger: Ledger, space: SearchSpace, points: Sequence[Point]) -> list[list[TrialFolder]]:
    """The trials of points that an earlier run proposed."""
    trials = []
    for number, point in enumerate(points):
        trials.append([ledger.add(spec) for spec in specs(space, point, lookup)])
        ledger.add_point(number, point, [folder.trial_id for folder in trials[-1]])
    return trials


def finish(folder: TrialFolder, *, dice: float, seconds: float = 10.0, measured: bool = True) -> None:
    """One attempt with half of the node; 0.7 kWh of the node per second if it is measured."""
    spec: TrialSpec = folder.spec()
    folder.begin_attempt(replace(HEADER, cpus=8.0, cpus_of_node=16, gpus=0.5, meter=METER))
    energy = {} if measured else dict.fromkeys(("cpu_kwh", "gpu_kwh", "ram_kwh"))
    of_seconds = make_interval(0, round(seconds), **energy)
    folder.append_cost(replace(of_seconds, iteration_stop=spec.curriculum.total_iterations))
    complete(folder, dice=dice)


def end(
    ledger: Ledger, space: SearchSpace, proposal: Proposal, how: TrialState | str, found: Lookup = lookup
) -> Outcome:
    """Bring a proposal's trials to an end, as a worker would; how well they did follows from the point."""
    folders = [ledger.add(spec) for spec in specs(space, proposal.point, found)]
    draw = random.Random(str(sorted(proposal.point.items())))
    for folder in folders:
        if how in (FAILED, INFEASIBLE):
            folder.fail(attempt=0, reason="it broke", state=TrialState(how))
        else:
            finish(folder, dice=draw.uniform(0.5, 0.9), seconds=draw.randint(5, 500), measured=how != UNMEASURED)
    return outcome(folders)


def sampler_of(space: SearchSpace, ledger: Ledger, **options: bool) -> Sampler:
    return make_sampler(space, ledger, lookup, **options)


def all_of(sampler: Sampler) -> list[Proposal]:
    return list(iter(sampler.propose, None))


def numbers(proposals: Sequence[Proposal]) -> list[int]:
    return [proposal.number for proposal in proposals]


def begun(sampler: Sampler) -> list[FrozenTrial]:
    """Optuna's trials of the points that have begun, without those of candidates."""
    assert isinstance(sampler, AdaptiveSampler) and isinstance(sampler.strategy, Tpe)
    trials = sampler.strategy.study.trials
    return [trials[number] for number in sampler.strategy.numbers.values()]


def refusing(is_refused: Callable[[Point], bool]) -> Callable[..., list[TrialSpec]]:
    def specs_or_error(space: SearchSpace, point: Point, lookup: Any) -> list[TrialSpec]:
        if is_refused(point):
            raise InvalidInputError(field="point", received=point, legal="something else")
        return specs(space, point, lookup)

    return specs_or_error
