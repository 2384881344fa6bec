"""From a point of a search space to the trials it stands for: one for every fold and seed."""

from __future__ import annotations

from collections.abc import Mapping

from study.errors import InvalidInputError
from study.records import TrialSpec
from study.spaces.domains import Scalar
from study.spaces.space import SearchSpace
from study.specs import Lookup, make_spec


def specs(space: SearchSpace, point: Mapping[str, Scalar], lookup: Lookup) -> list[TrialSpec]:
    """The specifications of a point, folds before seeds.

    Args:
        space: where the point comes from.
        point: a value for each searched setting; plain JSON.
        lookup: finds plans and splits, see `specs.prepared_lookup`.

    Raises:
        InvalidInputError: the point does not fit the space, or no dataset is named.
        StudyError: what the lookup raises.
    """
    settings = space.settings(point)
    if settings.dataset is None:
        raise _no_dataset()
    made = []
    for fold in space.folds:
        plan, split_sha256 = lookup(settings.dataset, space.plans, space.configuration, fold)
        made += [
            make_spec(
                plan=plan,
                split_sha256=split_sha256,
                fold=fold,
                seed=seed,
                scheme=settings.scheme,
                axes=settings.axes,
                training=settings.training,
            )
            for seed in space.seeds
        ]
    return made


def check_data(space: SearchSpace, lookup: Lookup) -> None:
    """Look every dataset and fold up once, so that what is missing is known before anything starts.

    Raises:
        InvalidInputError: no dataset is named, or a configuration or fold does not exist.
        StudyError: what else the lookup raises.
    """
    if not space.datasets:
        raise _no_dataset()
    for dataset in space.datasets:
        for fold in space.folds:
            lookup(dataset, space.plans, space.configuration, fold)


def _no_dataset() -> InvalidInputError:
    return InvalidInputError(
        field="datasets",
        received=None,
        legal="a dataset id or name",
        remedy="give --dataset, or `datasets` in the space",
    )
