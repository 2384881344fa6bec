"""From settings to the specification of a trial: the curriculum resolved for a plan, every default filled in.

A specification also needs what lies on disk: the plan of the network and the cases of the fold. `prepared_lookup` reads
both from prepared data, each once; whatever is missing there is raised before anything expensive starts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from study.curriculum import Axes, resolve
from study.datasets import DataPaths, find_dataset
from study.plan import NetworkPlan
from study.records import TrainingSettings, TrialSpec

Lookup = Callable[[int | str, str | None, str, int], tuple[NetworkPlan, str]]
"""(dataset id or name, plans or None for the default ones, configuration, fold) -> the plan, SHA-256 of the split."""


def make_spec(
    *,
    plan: NetworkPlan,
    split_sha256: str,
    fold: int,
    seed: int,
    scheme: str,
    axes: Axes,
    training: TrainingSettings,
) -> TrialSpec:
    """The specification of one training.

    Args:
        plan: of the network and its dataset.
        split_sha256: of the fold's training and validation cases.
        fold: of the dataset's split.
        seed: of weights and batches, and of the draws of a random order.
        scheme: name that the axes started from.
        axes: point of the search space of curricula.
        training: settings whose unset fields take the default of the optimizer and of the curriculum.

    Raises:
        InvalidInputError: fold or seed outside their range.
    """
    curriculum = resolve(
        plan.geometry,
        axes,
        epochs=training.epochs,
        iterations_per_epoch=training.iterations_per_epoch,
        seed=seed,
    )
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
    )


def prepared_lookup(paths: DataPaths) -> Lookup:
    """A lookup in prepared data that remembers its answers. A dataset without a split is given nnU-Net's own.

    The lookup raises MissingDataError for a dataset, plans, preprocessed cases or a split that is not there, and
    InvalidInputError for a configuration or fold that the dataset does not have.
    """

    @cache
    def planned(dataset: int | str, plans: str | None, configuration: str) -> NetworkPlan:
        prepared = find_dataset(paths, dataset)
        plan = prepared.plan(prepared.choose_plans(plans), configuration)
        prepared.check_preprocessed(plan)
        prepared.ensure_splits(plan.data_identifier)
        return plan

    @cache
    def split_sha256(dataset: int | str, fold: int) -> str:
        return find_dataset(paths, dataset).split(fold).sha256

    def lookup(dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        return planned(dataset, plans, configuration), split_sha256(dataset, fold)

    return lookup
