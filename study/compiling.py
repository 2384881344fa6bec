"""torch.compile for the large stages of long trainings, with one cache for all trainings of a node."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from study.causes import one_line
from study.execution import CACHE_VARIABLE
from study.losses import without_branches


class CompilerMissingError(Exception):
    """What compiling needs is not here, or broke before; only `Compiler` sees it."""


class Compiler:
    """A network and its loss, compiled when they are first run at a shape, like nnU-Net's own.

    Args:
        network: stays as it is: prediction and checkpoints use it uncompiled.
        build_loss: nnU-Net's maker of the loss, whose Dice is compiled, too.
        shapes: how many training shapes there may be.
    """

    def __init__(self, network: Any, build_loss: Callable[[], Any], *, shapes: int) -> None:
        self._network, self._build_loss, self._shapes = network, build_loss, shapes
        self._broken = ""

    @cached_property
    def network(self) -> Any:
        """The network, compiled anew for every shape: kernels of fixed shapes are faster and can be captured."""
        allow_compilations(2 * self._shapes + 2)
        # A trial's share of the cores, not all of the node's.
        torch._inductor.config.compile_threads = torch.get_num_threads()
        return torch.compile(self._network, dynamic=False)

    @cached_property
    def loss(self) -> Any:
        """The loss; its Dice is compiled once for all shapes of deep supervision, as in nnU-Net."""
        loss = without_branches(self._build_loss())
        inner = getattr(loss, "loss", loss)
        if hasattr(inner, "dc"):
            inner.dc = torch.compile(inner.dc)
        return loss

    def check(self) -> None:
        """Raise CompilerMissingError when compiling has failed before in this training: it takes long to fail."""
        if self._broken:
            raise CompilerMissingError(self._broken)

    def broke(self, error: BaseException) -> str:
        """Remember that compiling failed; why, in one line."""
        if not isinstance(error, CompilerMissingError):
            self._broken = one_line(error)
        return self._broken


def use_compile_cache(folder: Path | None) -> Path:
    """Have all trainings of this user on this node share one folder of compiled kernels; call before compiling.

    Args:
        folder: made if absent; None is `$TORCHINDUCTOR_CACHE_DIR`, else `pgps-study/inductor` in the user's cache.

    Returns:
        The folder; one of this process alone where that one cannot be written, or is somebody else's, whose code it
        would run.
    """
    try:
        chosen = folder or _default_folder()
        chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
        if chosen.stat().st_uid != os.getuid() or not os.access(chosen, os.W_OK):
            raise PermissionError(chosen)
    except (OSError, RuntimeError):  # the latter: no home
        chosen = Path(tempfile.mkdtemp(prefix="pgps-study-inductor-"))
    os.environ[CACHE_VARIABLE] = str(chosen)
    return chosen


def allow_compilations(count: int) -> None:
    """Let dynamo compile so many shapes: beyond its limit it runs further ones eagerly, without a word."""
    import torch._dynamo

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, max(getattr(torch._dynamo.config, limit), count))


def _default_folder() -> Path:
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgps-study" / "inductor"
