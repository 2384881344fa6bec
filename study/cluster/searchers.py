"""Who proposes points: a list made in advance (grid, random), or Optuna's multi-objective TPE.

Optuna's study is rebuilt from the ledger at every start: finished points are told in the order they were proposed,
unfinished ones are proposed again before anything new.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import optuna
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from study.cluster.work import outcome
from study.errors import InvalidInputError
from study.ledger import Ledger
from study.spaces import OBJECTIVES, Choice, Domain, Integer, LogUniform, Point, SearchSpace, Uniform, specs
from study.specs import Lookup

STUDY_NAME = "pgps-study"
_DIRECTIONS = {"max": optuna.study.StudyDirection.MAXIMIZE, "min": optuna.study.StudyDirection.MINIMIZE}


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a run proposes points.

    Attributes:
        algorithm: Tune's searcher, None for a list.
        parameters: Tune's `param_space`.
        samples: Tune's `num_samples`: how many points a searcher may propose, or how often a list is gone through.
            0 when there is nothing to do.
    """

    algorithm: Any
    parameters: dict[str, Any]
    samples: int


def listed(count: int) -> Search:
    """A search through as many points known in advance."""
    parameters = {"index": tune.grid_search(list(range(count)))}
    return Search(algorithm=None, parameters=parameters, samples=min(count, 1))


def unfinished_points(space: SearchSpace, ledger: Ledger, lookup: Lookup) -> list[Point]:
    """Points of a grid or random search that have something to train; the others are recorded in the ledger.

    Of points that resolve to the same trials the first alone is left: the others would wait for it in its way.
    """
    unfinished: dict[tuple[str, ...], Point] = {}
    for point in space.points():
        trials = tuple(spec.trial_id for spec in specs(space, point, lookup))
        if trials in unfinished or all(ledger.trial(trial).result() is not None for trial in trials):
            ledger.add_point(point, list(trials))
        else:
            unfinished[trials] = point
    return list(unfinished.values())


def optuna_search(space: SearchSpace, ledger: Ledger) -> Search:
    """Multi-objective TPE that knows what the ledger knows.

    Raises:
        InvalidInputError: fewer trials are asked for than the ledger already holds.
    """
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(domain) for name, domain in space.searched.items()}
    storage = optuna.storages.InMemoryStorage()
    directions = [_DIRECTIONS[OBJECTIVES[name]] for name in space.objectives]
    study = optuna.create_study(storage=storage, study_name=STUDY_NAME, directions=directions)
    finished, unfinished = known_points(ledger)
    # Without this count a resumed study would draw its start-up points again.
    known = len(finished) + len(unfinished)
    for point, values in finished:
        if not set(space.objectives) <= set(values):
            continue
        told = [values[name] for name in space.objectives]
        study.add_trial(optuna.trial.create_trial(params=point, distributions=distributions, values=told))
    algorithm = OptunaSearch(
        distributions,
        metric=list(space.objectives),
        mode=[OBJECTIVES[name] for name in space.objectives],
        points_to_evaluate=unfinished,
        sampler=optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=space.seed + known),
        study_name=STUDY_NAME,
        storage=storage,
    )
    return Search(algorithm=algorithm, parameters={}, samples=_remaining(space, len(finished)))


def known_points(ledger: Ledger) -> tuple[list[tuple[dict[str, Any], dict[str, float]]], list[dict[str, Any]]]:
    """Points of the ledger: finished ones with their mean outcome, and those still to be finished."""
    finished, unfinished = [], []
    for record in ledger.points():
        folders = [ledger.trial(trial_id) for trial_id in record["trial_ids"]]
        if all(folder.result() is not None for folder in folders):
            finished.append((record["point"], outcome(folders)))
        else:
            unfinished.append(record["point"])
    return finished, unfinished


def _remaining(space: SearchSpace, finished: int) -> int:
    wanted = space.trials or 0
    if wanted < finished:
        raise InvalidInputError(
            field="trials", received=wanted, legal=f"at least {finished}, which have finished in this study"
        )
    return wanted - finished


def _distribution(domain: Domain) -> Any:
    distributions = optuna.distributions
    if isinstance(domain, Choice):
        return distributions.CategoricalDistribution(list(domain.values() or ()))
    if isinstance(domain, Integer):
        return distributions.IntDistribution(domain.low, domain.high)
    if isinstance(domain, LogUniform):
        return distributions.FloatDistribution(domain.low, domain.high, log=True)
    if isinstance(domain, Uniform):
        return distributions.FloatDistribution(domain.low, domain.high)
    raise InvalidInputError(field="domain", received=domain, legal="choice, integer, uniform or log_uniform")
