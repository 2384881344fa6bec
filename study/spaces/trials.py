"""From a point of a search space to the trials it stands for: one for every fold and seed."""

from __future__ import annotations

from collections.abc import Mapping

from study.data_curriculum import resolve_cases
from study.errors import InvalidInputError
from study.records import TrialSpec
from study.spaces.domains import Scalar
from study.spaces.space import SearchSpace
from study.specs import Lookup, make_spec, ranked_cases


def specs(space: SearchSpace, point: Mapping[str, Scalar], lookup: Lookup) -> list[TrialSpec]:
    """The specifications of a point, folds before seeds.

    Args:
        space: where the point comes from.
        point: a value for each searched setting; plain JSON.
        lookup: finds plans, splits and rankings, see `specs.prepared_lookup`.

    Raises:
        InvalidInputError: the point does not fit the space, or no dataset is named.
        StudyError: what the lookup raises.
    """
    settings = space.settings(point)
    if settings.dataset is None:
        raise _no_dataset()
    made = []
    plans = space.plans_of(settings.dataset)
    for fold in space.folds:
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
    """Look every dataset and fold up once, so that what is missing is known before anything starts.

    Raises:
        InvalidInputError: no dataset is named, a configuration or fold does not exist, or a share of the training cases
            leaves none of them.
        StudyError: what else the lookup raises.
    """
    if not space.datasets:
        raise _no_dataset()
    for dataset in space.datasets:
        for fold in space.folds:
            lookup(dataset, space.plans_of(dataset), space.configuration, fold)
            for axes in space.data_axes:
                resolve_cases(ranked_cases(lookup, dataset, fold, axes) or (), axes.pdl_fraction)


def _no_dataset() -> InvalidInputError:
    return InvalidInputError(
        field="datasets",
        received=None,
        legal="a dataset id or name",
        remedy="give --dataset, or `datasets` in the space",
    )
