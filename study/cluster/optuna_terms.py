"""A study in Optuna's terms: distributions for domains, directions for objectives, trial states for outcomes.

finished                             COMPLETE, with a value for each objective
finished, an objective unmeasured    FAIL
infeasible                           PRUNED: ranked behind everything complete, so it is kept away from
failed, lost or interrupted          FAIL: nothing is known of the point
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from study.errors import InvalidInputError
from study.outcomes import Outcome
from study.spaces import OBJECTIVES, Choice, Domain, Integer, LogUniform, SearchSpace, Uniform
from study.trial_folder import TrialState

DIRECTIONS = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How a trial of Optuna ends.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        values: one for each objective if it is complete, else None.
        reason: why it is not complete, in one line.
    """

    state: OptunaState
    values: list[float] | None = None
    reason: str | None = None


def verdict(outcome: Outcome, objectives: Sequence[str]) -> Verdict:
    """How Optuna's trial of a point ends that came to this outcome."""
    if outcome.state is TrialState.INFEASIBLE:
        return Verdict(state=OptunaState.PRUNED, reason=outcome.reason or "infeasible")
    if outcome.state is not TrialState.FINISHED:
        return Verdict(state=OptunaState.FAIL, reason=outcome.reason or outcome.state.value)
    values = [outcome.values.get(name, math.nan) for name in objectives]
    unmeasured = [name for name, value in zip(objectives, values, strict=True) if not math.isfinite(value)]
    if unmeasured:
        return Verdict(state=OptunaState.FAIL, reason=f"{', '.join(unmeasured)} not measured")
    return Verdict(state=OptunaState.COMPLETE, values=values)


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Name -> distribution of the searched settings, in their order."""
    return {name: _distribution(domain) for name, domain in space.searched.items()}


def directions(objectives: Sequence[str]) -> list[StudyDirection]:
    """Of each objective."""
    return [DIRECTIONS[OBJECTIVES[name]] for name in objectives]


def silence_optuna() -> None:
    """Have Optuna keep what it says of itself to itself; its errors stay."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # Version 6 is to lose an argument of the sampler; see `tpe`.
    warnings.filterwarnings("ignore", category=FutureWarning, message="`gamma`")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high)
    if isinstance(domain, LogUniform):
        return FloatDistribution(domain.low, domain.high, log=True)
    if isinstance(domain, Uniform):
        return FloatDistribution(domain.low, domain.high)
    raise InvalidInputError(field="domain", received=domain, legal="choice, integer, uniform or log_uniform")
