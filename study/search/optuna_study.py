"""The Optuna study of a ledger: rebuilt from its points whenever it is looked at, and never what a search goes on from.

In Optuna's terms: distributions for domains, directions for objectives, trial states for outcomes.

finished                             COMPLETE, with a value for each objective
finished, an objective unmeasured    FAIL
infeasible, or stopped late          PRUNED: ranked behind everything complete, so it is kept away from
failed, lost or interrupted          FAIL: nothing is known of the point
being trained                        RUNNING, with the curve so far
neither, in a rebuilt study          WAITING: the command that runs the study trains it

TPE holds such a study in memory, rebuilt from the ledger at every start, with a trial also for each point that is being
trained (the sampler counts them as poor for now, so that trials that run side by side differ). A sampler lives for one
candidate, its seed made from the space's seed, the number and the try: nothing but the ledger decides what comes next.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from statistics import fmean
from typing import NamedTuple

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from study.common.errors import InvalidInputError, LedgerError, MachineError
from study.curriculum.curriculum import Curriculum
from study.search.domains import Choice, Domain, Integer, Interval, LogUniform
from study.search.samplers import Strategy, known_points
from study.search.space import OBJECTIVES, Point, SearchSpace
from study.store.ledger import Ledger
from study.store.outcomes import Outcome
from study.store.trial_folder import TrialFolder, TrialState

# Shown of lists, which optimise nothing: what every training has.
OBJECTIVES_OF_LISTS = ("dice", "runtime_seconds")
# How long a database may be in somebody else's hands.
LOCK_SECONDS = 10.0
SETTLED = (TrialState.FINISHED, TrialState.STOPPED, TrialState.INFEASIBLE, TrialState.FAILED)
STUDY = "study"


class OptunaEnding(NamedTuple):
    """How a trial of Optuna ends: values, one for each objective, if it is COMPLETE, else in one line why it is not."""

    state: OptunaState
    values: list[float] | None = None
    reason: str | None = None


def ending_of(outcome: Outcome, objectives: Sequence[str]) -> OptunaEnding:
    """How Optuna's trial of a point ends that came to this outcome."""
    if outcome.state in (TrialState.INFEASIBLE, TrialState.STOPPED):
        return OptunaEnding(OptunaState.PRUNED, reason=outcome.reason or outcome.state.value)
    if outcome.state is not TrialState.FINISHED:
        return OptunaEnding(OptunaState.FAIL, reason=outcome.reason or outcome.state.value)
    values = [outcome.values.get(name, math.nan) for name in objectives]
    unmeasured = [name for name, value in zip(objectives, values, strict=True) if not math.isfinite(value)]
    if unmeasured:
        return OptunaEnding(OptunaState.FAIL, reason=f"{', '.join(unmeasured)} not measured")
    return OptunaEnding(OptunaState.COMPLETE, values)


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Name -> distribution of the searched settings, in their order."""
    return {name: _distribution(domain) for name, domain in space.searched.items()}


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if isinstance(domain, Integer):
        return IntDistribution(domain.low, domain.high)
    if isinstance(domain, Interval):
        return FloatDistribution(domain.low, domain.high, log=isinstance(domain, LogUniform))
    raise InvalidInputError(field="domain", received=domain, legal="choice, integer, uniform or log_uniform")


def directions(objectives: Sequence[str]) -> list[StudyDirection]:
    """Of each objective."""
    return [StudyDirection[f"{OBJECTIVES[name]}imize".upper()] for name in objectives]


def silence_optuna() -> None:
    """Have Optuna keep what it says of itself to itself; its errors stay."""
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # Version 6 is to lose an argument of the sampler; see `tpe`.
    warnings.filterwarnings("ignore", category=FutureWarning, message="`gamma`")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def rebuilt(space: SearchSpace, ledger: Ledger) -> optuna.Study:
    """The study in memory, named as the space; a trial for each point of the ledger, in order of number.

    Trials have their own times, the mean curve of their folds and seeds as intermediate values, and as user attributes
    the point's number, its trials in the ledger, and why they are not complete.

    Raises:
        LedgerError: a record is damaged or belongs to another space.
    """
    silence_optuna()
    objectives = space.objectives or OBJECTIVES_OF_LISTS
    study = optuna.create_study(study_name=space.name, directions=directions(objectives))
    study.set_metric_names(list(objectives))
    study.set_user_attr(STUDY, ledger.header()["created_at"])
    settings = distributions(space)
    for proposal, outcome in known_points(space, ledger):
        folders = [ledger.trial(name) for name in proposal.trial_ids]
        ending = _ending(outcome, folders, objectives)
        attributes = {"point number": proposal.number, "trial ids": list(proposal.trial_ids), "reason": ending.reason}
        trial = optuna.trial.create_trial(
            state=ending.state,
            values=ending.values,
            params=proposal.point,
            distributions=settings,
            user_attrs={name: value for name, value in attributes.items() if value is not None},
            intermediate_values=_curve(folders),
        )
        times = [datetime.fromtimestamp(event["time"]) for folder in folders for event in folder.events()]
        if times and ending.state is not OptunaState.WAITING:
            trial.datetime_start = min(times)
            trial.datetime_complete = max(times) if ending.state.is_finished() else None
        study.add_trial(trial)
    return study


def _ending(outcome: Outcome, folders: Sequence[TrialFolder], objectives: Sequence[str]) -> OptunaEnding:
    """How a point stands; what has not ended is being trained, or waits until the study is run again."""
    if any(folder.state() is TrialState.RUNNING for folder in folders):
        return OptunaEnding(OptunaState.RUNNING)
    return ending_of(outcome, objectives) if outcome.state in SETTLED else OptunaEnding(OptunaState.WAITING)


def _curve(folders: Sequence[TrialFolder]) -> dict[int, float]:
    """Pseudo Dice by epoch, counted from one: the mean of the trials that were evaluated then."""
    values: dict[int, list[float]] = {}
    for folder in folders:
        for report in folder.epochs():
            if report.pseudo_dice is not None:
                values.setdefault(report.epoch + 1, []).append(report.pseudo_dice)
    return {epoch: fmean(found) for epoch, found in sorted(values.items())}


def keep(study: optuna.Study, url: str) -> None:
    """Write a rebuilt study to a storage, in place of an earlier copy of it.

    The storage is the URL of a relational database (`sqlite:///study.db`), or the path of a journal file.

    Raises:
        LedgerError: the storage holds another study of that name.
        MachineError: it is locked, unreachable or unreadable.
    """
    name, where = study.study_name, f"the Optuna storage {_without_password(url)}"
    try:
        storage = _storage(url)
        if name in optuna.get_all_study_names(storage):
            earlier = optuna.load_study(study_name=name, storage=storage)
            if earlier.user_attrs.get(STUDY) != study.user_attrs[STUDY]:
                raise LedgerError(f"{where} holds another study named {name!r}; name another one")
            optuna.delete_study(study_name=name, storage=storage)
        optuna.copy_study(from_study_name=name, from_storage=study._storage, to_storage=storage)
    except LedgerError:
        raise
    except Exception as error:
        remedy = "name another one, or leave it out: the dashboard needs none"
        raise MachineError(f"{where} cannot be used ({_reason(error)}); {remedy}") from error


def _storage(url: str) -> BaseStorage:
    if "://" not in url:
        return JournalStorage(JournalFileBackend(url))
    arguments = {"connect_args": {"timeout": LOCK_SECONDS}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs=arguments)


def _reason(error: BaseException) -> str:
    """The innermost error in one line: those around it are SQLAlchemy's and Optuna's."""
    cause = error.__cause__ or getattr(error, "orig", None)
    if cause is not None:
        return _reason(cause)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True) if "://" in url else url
    except ArgumentError:
        return "given"


# How often the sampler is asked for one proposal before points are drawn evenly instead.
TRIES = 20
# The tenth that Optuna takes for good, chosen by hypervolume, costs the square of the points known and more once many
# are on the front: from 500 points on this many, so that a proposal's time grows no faster than they do.
MOST_GOOD = 50


class Tpe(Strategy):
    """Optuna's multi-objective TPE.

    Attributes:
        study: Optuna's, in memory; a trial for each point that has begun, and failed ones for candidates.
        numbers: of a point -> of its trial in `study`.
    """

    def __init__(self, space: SearchSpace, curriculum_of: Callable[[Point], Curriculum]) -> None:
        silence_optuna()
        self._space = space
        self._distributions = distributions(space)
        self.study = optuna.create_study(directions=directions(space.objectives))
        self.numbers: dict[int, int] = {}

    def begin(self, number: int, point: Point) -> None:
        self.study.add_trial(
            optuna.trial.create_trial(state=OptunaState.RUNNING, params=point, distributions=self._distributions)
        )
        self.numbers[number] = len(self.study.get_trials(deepcopy=False)) - 1

    def tell(self, number: int, reached: Outcome) -> None:
        ending = ending_of(reached, self._space.objectives)
        self.study.tell(self.numbers[number], ending.values, state=ending.state)

    def candidates(self, number: int) -> Iterator[Point]:
        for attempt in range(TRIES):
            self.study.sampler = _Sampler(self._distributions, _seed(self._space.seed, number, attempt))
            trial = self.study.ask(self._distributions)
            # Failed trials are no part of what the sampler learns from; the one that is taken begins anew.
            self.study.tell(trial, state=OptunaState.FAIL)
            yield {name: trial.params[name] for name in self._distributions}


class _Sampler(optuna.samplers.TPESampler):
    """Multi-objective TPE of settings that all points have."""

    def __init__(self, space: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True, gamma=_count_of_good, seed=seed)
        self._settings = space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All settings; Optuna would compare those of all trials, a third of the time of a proposal."""
        return dict(self._settings)


def _count_of_good(told: int) -> int:
    """How many of the points told are taken for good ones: Optuna's tenth, up to what keeps proposals quick."""
    return min(math.ceil(told / 10), MOST_GOOD)


def _seed(seed: int, number: int, attempt: int) -> int:
    """Of one try for one proposal, unlike that of any other."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {attempt}".encode()).digest()[:4])
