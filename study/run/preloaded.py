"""Processes for nnU-Net's validation that need not import nnU-Net anew: forked from a server that has.

nnU-Net spawns one pool to write predictions and another to score them, whose processes import torch and nnU-Net each
before they do anything. Here they come from Python's own forkserver, started once beside the server of trainings.
"""

from __future__ import annotations

from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.context import BaseContext
from types import SimpleNamespace

MODULES = ["nnunetv2.inference.export_prediction", "nnunetv2.evaluation.evaluate_predictions"]


def start() -> None:
    """Start the forkserver; call in the process that forks trainings."""
    get_context("forkserver").set_forkserver_preload(MODULES)
    forkserver.ensure_running()


def use() -> None:
    """Have nnU-Net's validation take its processes from the inherited forkserver; call in a forked training."""
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer

    # It would wait for the forkserver as for a child of its own, which it is not.
    forkserver._forkserver.ensure_running = resource_tracker.ensure_running  # type: ignore
    for module in (nnUNetTrainer, evaluate_predictions):
        module.multiprocessing = SimpleNamespace(get_context=_from_forkserver)


def helpers() -> list[int]:
    """The forkserver's id, if there is one: what its children use for the validation is no child's of the training."""
    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore
    return [] if pid is None else [pid]


def _from_forkserver(_: str) -> BaseContext:
    return get_context("forkserver")
