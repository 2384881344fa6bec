"""From a point of a search space to the trials it stands for: a specification for every fold and seed.

A specification has the curricula resolved for a plan and every default filled in. It also needs what lies on disk: the
plan of the network, the cases of the fold and, if the training starts on some of them, their ranking. `prepared_lookup`
reads it from prepared data, each file once; whatever is missing there is raised before anything expensive starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from study.common.errors import InvalidInputError
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.data_curriculum import DataCurriculum, phase_iterations, resolve_cases
from study.curriculum.schemes import Axes
from study.nnunet.datasets import DataPaths, find_dataset
from study.nnunet.plans import NetworkPlan
from study.search.domains import Scalar
from study.search.space import SearchSpace
from study.store.specification import TrainingSettings, TrialSpec

if TYPE_CHECKING:
    from study.ranking.files import Ranking


Lookup = Callable[[int | str, str | None, str, int], tuple[NetworkPlan, str]]
"""From dataset, plans (None: the default), configuration and fold to the plan and the SHA-256 of the fold's split.

One that knows rankings has a method `ranked` too: from dataset, fold and metric to the fold's training cases, most
dissimilar first.
"""


def make_spec(
    *,
    plan: NetworkPlan,
    split_sha256: str,
    fold: int,
    seed: int,
    scheme: str,
    axes: Axes,
    training: TrainingSettings,
    ranked: Sequence[str] | None = None,
) -> TrialSpec:
    """The specification of one training.

    Arguments are as `TrialSpec` has them. Unset fields of `training` take the default of the optimizer and of the
    curriculum; `ranked` are the fold's training cases if the axes need them, see `ranked_cases`.

    Raises:
        InvalidInputError: fold or seed outside their range; a data curriculum that leaves no case, that is longer than
            the training, or whose ranking is not given.
    """
    curriculum = resolve(
        plan.geometry,
        axes,
        epochs=training.epochs,
        iterations_per_epoch=training.iterations_per_epoch,
        seed=seed,
    )
    _check_normalization(training, curriculum)
    data = None
    if axes.needs_ranking:
        each_epoch = curriculum.total_iterations // training.epochs
        until_iteration = phase_iterations(axes.pdl_epochs, epochs=training.epochs, iterations_per_epoch=each_epoch)
        cases = resolve_cases(_there(ranked, axes), axes.pdl_fraction)
        data = None if cases is None else DataCurriculum(cases=cases, until_iteration=until_iteration)
    return TrialSpec(
        dataset=plan.dataset,
        plans=plan.plans,
        configuration=plan.configuration,
        fold=fold,
        seed=seed,
        scheme=scheme,
        axes=axes,
        curriculum=curriculum,
        training=training.resolved(constant_patch_size=curriculum.is_constant),
        plans_sha256=plan.sha256,
        split_sha256=split_sha256,
        data=data,
    )


def _check_normalization(training: TrainingSettings, curriculum: Curriculum) -> None:
    divisors = curriculum.geometry.divisors
    for stage in curriculum.stages:
        bottleneck = math.prod(n // d for n, d in zip(stage.patch_size, divisors, strict=True))
        if training.normalization == "batch" and stage.batch_size * bottleneck == 1:
            legal = "instance or group where a stage has one sample with one voxel at the bottleneck"
            raise InvalidInputError(field="normalization", received="batch", legal=legal)


def ranked_cases(lookup: Lookup, dataset: int | str, fold: int, axes: Axes) -> Sequence[str] | None:
    """The fold's training cases in the order that a point of the search space needs, None if it needs none.

    Raises:
        MissingDataError: nobody has ranked them.
        InvalidInputError: the ranking is of another dataset, fold or split, or the lookup knows no rankings.
    """
    if not axes.needs_ranking:
        return None
    cases: Sequence[str] = _there(getattr(lookup, "ranked", None), axes)(dataset, fold, axes.pdl_metric)
    return cases


def _there(found: Any, axes: Axes) -> Any:
    if found is None:
        legal = "0 where no ranking of the training cases is looked up"
        raise InvalidInputError(field="pdl_fraction", received=axes.pdl_fraction, legal=legal)
    return found


def prepared_lookup(paths: DataPaths) -> Lookup:
    """A lookup in prepared data that remembers its answers. A dataset without a split is given nnU-Net's own.

    The lookup raises MissingDataError for a dataset, plans, preprocessed cases, a split or a ranking that is not there,
    and InvalidInputError for a configuration or fold that the dataset does not have, or a ranking of something else.
    """
    return _PreparedLookup(paths)


class _PreparedLookup:
    def __init__(self, paths: DataPaths) -> None:
        self._paths = paths
        self._planned, self._found, self._ranking = cache(self._plan), cache(self._find), cache(self._load_ranking)

    def __call__(self, dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        return self._found(dataset, plans, configuration, fold)

    def ranked(self, dataset: int | str, fold: int, metric: str) -> Sequence[str]:
        return self._ranking(dataset, fold).most_dissimilar(metric)

    def _plan(self, dataset: int | str, plans: str | None, configuration: str) -> NetworkPlan:
        prepared = find_dataset(self._paths, dataset)
        plan = prepared.plan(prepared.choose_plans(plans), configuration)
        prepared.check_preprocessed(plan)
        prepared.ensure_splits(plan.data_identifier)
        return plan

    def _find(self, dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        plan, prepared = self._planned(dataset, plans, configuration), find_dataset(self._paths, dataset)
        split = prepared.trainable_split(fold)
        prepared.check_cases(plan, split)
        return plan, split.sha256

    def _load_ranking(self, dataset: int | str, fold: int) -> Ranking:
        from study.ranking.files import load_ranking

        return load_ranking(find_dataset(self._paths, dataset), fold)


def specs(space: SearchSpace, point: Mapping[str, Scalar], lookup: Lookup) -> list[TrialSpec]:
    """The specifications of a point, folds before seeds.

    Raises:
        InvalidInputError: the point does not fit the space, or no dataset is named.
        StudyError: what the lookup raises.
    """
    settings = space.settings(point)
    if settings.dataset is None:
        raise _no_dataset()
    made = []
    for fold in space.folds:
        plans = space.plans_of(settings.dataset, settings.plans)
        plan, split_sha256 = lookup(settings.dataset, plans, space.configuration, fold)
        ranked = ranked_cases(lookup, settings.dataset, fold, settings.axes)
        made += [
            make_spec(
                plan=plan,
                split_sha256=split_sha256,
                fold=fold,
                seed=seed,
                scheme=settings.scheme,
                axes=settings.axes,
                training=settings.training,
                ranked=ranked,
            )
            for seed in space.seeds
        ]
    return made


def check_data(space: SearchSpace, lookup: Lookup) -> None:
    """Look every dataset, plan and fold up once, so that what is missing is known before anything starts.

    Raises:
        InvalidInputError: no dataset is named, a configuration or fold does not exist, or a share of the training cases
            leaves none of them.
        StudyError: what else the lookup raises.
    """
    if not space.datasets:
        raise _no_dataset()
    for dataset, plans in space.planned:
        for fold in space.folds:
            lookup(dataset, plans, space.configuration, fold)
            for axes in space.data_axes:
                resolve_cases(ranked_cases(lookup, dataset, fold, axes) or (), axes.pdl_fraction)


def _no_dataset() -> InvalidInputError:
    remedy = "give --dataset, or `datasets` in the space"
    return InvalidInputError(field="datasets", received=None, legal="a dataset id or name", remedy=remedy)
