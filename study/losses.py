"""nnU-Net's losses, and what it counts in validation batches, without a decision that has to wait for the GPU."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss


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
