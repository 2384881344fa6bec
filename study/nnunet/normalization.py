"""Normalisation layers other than the plan's, put where stock nnU-Net finds them: into the plans kept with a trial.

nnU-Net builds a network, for training and for prediction, from the class and arguments that `architecture` of a plans
file names. The trial's own copy of the plans names the wanted ones, so its models are predicted with as any others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn.modules.batchnorm import _BatchNorm

from study.common.errors import InvalidInputError
from study.store.training_settings import NORMALIZATION_GROUPS


class GroupedNorm(torch.nn.GroupNorm):
    """GroupNorm made from a number of channels, as nnU-Net makes its layers.

    Args:
        num_channels: of the feature map.
        groups: at most; fewer where they do not divide the channels.
        more: further arguments of `torch.nn.GroupNorm`.
    """

    def __init__(self, num_channels: int, groups: int = NORMALIZATION_GROUPS, **more: Any) -> None:
        fitting = next(n for n in range(min(groups, num_channels), 0, -1) if num_channels % n == 0)
        super().__init__(fitting, num_channels, **more)


def with_normalization(plans: Mapping[str, Any], configuration: str, normalization: str) -> dict[str, Any]:
    """A copy of a plans file's content in which the network of a configuration has other normalisation layers.

    Raises:
        InvalidInputError: a network that has none to replace.
    """
    made = copy.deepcopy(dict(plans))
    if normalization == "instance":
        return made
    # With what it inherits, and of old plans what nnU-Net makes of them.
    architecture = copy.deepcopy(PlansManager(copy.deepcopy(made)).get_configuration(configuration).configuration)
    architecture = architecture["architecture"]
    if not architecture["arch_kwargs"].get("norm_op"):
        legal = f"instance for {architecture['network_class_name']}, whose plan names no norm_op to replace"
        raise InvalidInputError(field="normalization", received=normalization, legal=legal)
    axes = architecture["arch_kwargs"]["conv_op"][-2:]
    layers = {
        "batch": f"torch.nn.modules.batchnorm.BatchNorm{axes}",
        "group": f"{__name__}.{GroupedNorm.__name__}",
    }
    shared = {"eps": 1e-5, "affine": True}
    groups = {"groups": NORMALIZATION_GROUPS} if normalization == "group" else {}
    architecture["arch_kwargs"] |= {"norm_op": layers[normalization], "norm_op_kwargs": shared | groups}
    made["configurations"][configuration]["architecture"] = architecture
    return made


def take_statistics(trainer: Any, observe: Callable[[], None]) -> None:
    """Take the running statistics of every BatchNorm anew, if the settings have any: the plain mean over batches.

    They follow from the weights and the batches alone, so what a stop breaks off is done again from its start.

    Args:
        trainer: with its job; its network is in training.
        observe: runs the next batch through the network.
    """
    batches = trainer.job.settings.statistics_batches
    if batches:
        with _forgetful(trainer.network):
            while batches and not trainer.job.observer.stop_requested():
                observe()
                batches -= 1


@contextmanager
def _forgetful(network: torch.nn.Module) -> Iterator[None]:
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
