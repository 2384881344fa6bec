"""torch.compile for the large stages of long trainings, with one cache for all trainings of a node.

nnU-Net's losses, and what it counts in validation batches, without a decision that has to wait for the GPU.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss

from study.nnunet.failures import one_line, out_of_memory
from study.store.readings import CACHE_VARIABLE

Work = TypeVar("Work")


def without_branches(loss: Any) -> Any:
    """The same loss, able to be captured where it has an ignored label; any other loss as it is.

    nnU-Net's Dice and cross entropy asks the GPU whether a batch holds anything but the ignored label, and leaves out
    the cross entropy, which would be 0 / 0, if it does not.
    """
    if isinstance(loss, DeepSupervisionWrapper):
        inner = without_branches(loss.loss)
        return loss if inner is loss.loss else DeepSupervisionWrapper(inner, loss.weight_factors)
    plain = isinstance(loss, DC_and_CE_loss) and type(loss.ce) is RobustCrossEntropyLoss and loss.ce.weight is None
    if not plain or loss.ignore_label is None or loss.ce.reduction != "mean":
        return loss
    return IgnoringDiceAndCrossEntropy(loss)


class IgnoringDiceAndCrossEntropy(torch.nn.Module):
    """nnU-Net's `DC_and_CE_loss` with an ignored label; where all is ignored the cross entropy is 0, as there.

    Args:
        loss: nnU-Net's, whose parts and weights are used.
    """

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.dc, self._label = loss.dc, loss.ignore_label
        self._weight_dice, self._weight_ce = loss.weight_dice, loss.weight_ce
        self._smoothing = loss.ce.label_smoothing

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean loss of logits (batch, classes, *patch) for labels (batch, 1, *patch)."""
        counts = target != self._label
        dice = self.dc(output, torch.where(counts, target, 0), loss_mask=counts) if self._weight_dice else 0
        summed = torch.nn.functional.cross_entropy(
            output,
            target[:, 0].long(),
            ignore_index=self._label,
            reduction="sum",
            label_smoothing=self._smoothing,
        )
        total: torch.Tensor = self._weight_ce * summed / counts.sum().clamp(min=1) + self._weight_dice * dice
        return total


def hits(output: torch.Tensor, target: torch.Tensor, labels: Any) -> tuple[torch.Tensor, ...]:
    """True positives, false positives and false negatives by foreground channel, as nnU-Net counts them.

    Args:
        output: logits at full resolution (batch, channels, *patch).
        target: labels (batch, 1, *patch), or with regions one channel each, the ignored region last.
        labels: nnU-Net's label manager.
    """
    mask: torch.Tensor | None = None
    if labels.has_regions:
        predicted = (torch.sigmoid(output) > 0.5).long()
        if labels.has_ignore_label:
            mask = (target[:, -1:] == 0).float()
            target = target[:, :-1]
    else:
        predicted = torch.zeros(output.shape, device=output.device, dtype=torch.float16)
        predicted.scatter_(1, output.argmax(1, keepdim=True), 1)
        if labels.has_ignore_label:
            mask = (target != labels.ignore_label).float()
            target = torch.where(target == labels.ignore_label, 0, target)
    axes = [0, *range(2, output.ndim)]
    counts = get_tp_fp_fn_tn(predicted, target, axes=axes, mask=mask)[:3]
    return counts if labels.has_regions else tuple(count[1:] for count in counts)


class Compiler:
    """A network and its loss, compiled when they are first run at a shape, like nnU-Net's own.

    Args:
        network: stays as it is: prediction and checkpoints use it uncompiled.
        build_loss: nnU-Net's maker of the loss, whose Dice is compiled, too.
        shapes: how many training shapes there may be.
    """

    def __init__(self, network: Any, build_loss: Callable[[], Any], *, shapes: int) -> None:
        self._network, self._build_loss, self._shapes = network, build_loss, shapes
        self.broken = ""

    @cached_property
    def network(self) -> Any:
        """The network, compiled anew for every shape: kernels of fixed shapes are faster and can be captured."""
        import torch._dynamo

        # Beyond dynamo's limit further shapes run eagerly, without a word.
        config = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
        setattr(config, limit, max(getattr(config, limit), 2 * self._shapes + 2))
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

    def tried(self, run: Callable[[Any, Any], Work]) -> Work | None:
        """What comes of running the compiled network and loss; None, and the reason in `broken`, where that fails.

        It takes long to fail, so it is not tried again in this training. Out of memory is raised.
        """
        if self.broken:
            return None
        try:
            return run(self.network, self.loss)
        except Exception as error:  # the compiler's own exceptions have no common class
            if out_of_memory(error):
                raise
            self.broken = one_line(error)
            return None


def use_compile_cache(folder: Path | None) -> Path:
    """Have all trainings of this user on this node share one folder of compiled kernels; call before compiling.

    It is made if absent; None is `$TORCHINDUCTOR_CACHE_DIR`, else `pgps-study/inductor` in the user's cache.

    Returns:
        The folder; one of this process alone where that one cannot be written, or is somebody else's, whose code it
        would run.
    """
    try:
        chosen = folder or Path(
            os.environ.get(CACHE_VARIABLE)
            or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgps-study" / "inductor"
        )
        chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
        if chosen.stat().st_uid != os.getuid() or not os.access(chosen, os.W_OK):
            raise PermissionError(chosen)
    except (OSError, RuntimeError):  # the latter: no home
        chosen = Path(tempfile.mkdtemp(prefix="pgps-study-inductor-"))
    os.environ[CACHE_VARIABLE] = str(chosen)
    return chosen
