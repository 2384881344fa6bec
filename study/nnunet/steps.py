"""How iterations are executed and timed, and what validation came to: nnU-Net's own steps, as a CPU runs them.

`cuda_steps` has those of a GPU.

Iterations are timed in stretches that are reported when they close. Where every iteration draws its stage, a stretch is
of many stages: it closes as seldom as any other, so that reading the meter and waiting for the device stay rare, and
says what each of them had of its time.

torch.compile for the large stages of long trainings, with one cache for all trainings of a node.

nnU-Net's losses, and what it counts in validation batches, without a decision that has to wait for the GPU.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss

from study.common.errors import one_line, out_of_memory
from study.store.readings import CACHE_VARIABLE, StagePart

Batch = dict[str, Any]


class StockSteps:
    """Executes the iterations of one training, here by nnU-Net's own steps."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def ready(self, stage: int, batch: Batch, iteration: int) -> None:
        """Make what the stage needs, given a batch of its shape, before the first of its iterations is seeded."""

    def train(self, stage: int, batch: Batch) -> float | torch.Tensor:
        """Train on a batch; its loss, which may wait for the device when it is read."""
        return float(self._trainer.train_step(batch)["loss"])

    def validate(self, batch: Batch, iteration: int) -> Any:
        """Evaluate a validation batch; see `outputs`."""
        return self._trainer.validation_step(batch)

    def observe(self, batch: Batch) -> None:
        """Run a batch through the network for what its layers take from it, without a gradient."""
        self._trainer.network(batch["data"].to(self._trainer.device))

    def outputs(self, validated: list[Any]) -> list[dict[str, Any]]:
        """What nnU-Net's `validation_step` would have returned for each batch."""
        return validated

    def settle(self) -> None:
        """Wait until all iterations are done, so that a clock read next is right."""

    def mark(self) -> Any:
        """A moment after the iterations so far, for `seconds_between`, without waiting for them."""
        return time.perf_counter()

    def seconds_between(self, first: Any, second: Any) -> float:
        """Seconds from one mark to a later one; only of what is settled."""
        return float(second - first)

    def close(self) -> None:
        """Free what was made."""


def read_losses(losses: Sequence[float | torch.Tensor]) -> list[float]:
    """Losses as numbers, waiting for the device once."""
    on_device = [loss for loss in losses if isinstance(loss, torch.Tensor)]
    values = iter(torch.stack(on_device).tolist() if on_device else ())
    return [next(values) if isinstance(loss, torch.Tensor) else float(loss) for loss in losses]


class IterationTimer:
    """Times consecutive iterations of one stage, or of stages drawn one by one.

    Args:
        position: gives the index of the next iteration.
        report: told the stage, the first iteration, the seconds and the parts of every stretch that closes.
        device: executes the iterations.
    """

    def __init__(
        self,
        position: Callable[[], int],
        report: Callable[[int | None, int, float, tuple[StagePart, ...]], None],
        device: StockSteps,
    ) -> None:
        self._position, self._report, self._device = position, report, device
        self._stage: int | None = None
        self.reopen()

    @property
    def seconds(self) -> float:
        """How long it has been open."""
        return time.perf_counter() - self._started

    def enter(self, stage: int) -> None:
        """Go on at a stage; another one closes the stretch of the last."""
        if stage != self._stage:
            self.close()
            self._stage = stage

    def drawn(self, stage: int) -> None:
        """The iteration just done was of a stage drawn for it alone."""
        self._draws.append((stage, self._device.mark()))

    def close(self) -> None:
        """Report the iterations since it opened, if any, and open again."""
        if self._position() > self._first:
            self._device.settle()
            seconds = self.seconds
            self._report(self._stage, self._first, seconds, self._parts(seconds))
        self.reopen()

    def reopen(self) -> None:
        """Open anew from here, leaving out the time since it closed."""
        self._first = self._position()
        self._started = time.perf_counter()
        self._draws: list[tuple[int, Any]] = [(-1, self._device.mark())]

    def _parts(self, seconds: float) -> tuple[StagePart, ...]:
        """The seconds by stage, in the ratio of those between marks."""
        if len(self._draws) - 1 != self._position() - self._first:
            return ()
        spent = defaultdict(list)
        for (_, before), (stage, after) in pairwise(self._draws):
            spent[stage].append(self._device.seconds_between(before, after))
        whole = sum(map(sum, spent.values()))
        return tuple(
            StagePart(stage=stage, iterations=len(laps), seconds=seconds * sum(laps) / whole)
            for stage, laps in sorted(spent.items())
        )


@dataclass(frozen=True, kw_only=True)
class OnlineValidation:
    """Loss, mean foreground Dice and Dice by class over the fixed batches; as it is, of an epoch without them."""

    loss: float | None = None
    dice: float | None = None
    dice_per_class: tuple[float | None, ...] = ()

    @classmethod
    def logged(cls, logger: Any) -> Self:
        """That of the epoch that nnU-Net's logger was last told of."""
        loss, dice = (float(logger.get_value(key, step=-1)) for key in ("val_losses", "mean_fg_dice"))
        by_class = logger.get_value("dice_per_class_or_region", step=-1)
        return cls(loss=loss, dice=_finite(dice), dice_per_class=tuple(_finite(float(value)) for value in by_class))


def log_none(logger: Any, labels: Any) -> None:
    """Repeat the last values: nnU-Net's log wants one per epoch for its progress.png; the ledger's report says None.

    Args:
        logger: nnU-Net's.
        labels: its label manager.
    """
    log = logger.local_logger.my_fantastic_logging
    classes = len(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    firsts = {"val_losses": math.nan, "mean_fg_dice": 0.0, "ema_fg_dice": 0.0}
    for key, first in {**firsts, "dice_per_class_or_region": [math.nan] * classes}.items():
        log[key].append(log[key][-1] if log[key] else first)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


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
