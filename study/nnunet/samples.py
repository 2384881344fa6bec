"""Samples of a stage: which cases and which boxes of them nnU-Net draws, cut out and transformed.

The draws are nnU-Net's, in its order. What it does around them is not: limits on thread pools looked up anew for every
batch, files opened and properties unpickled for every sample, crops wider than the patch where none is rotated.

Cases of a dataset that a process has opened, kept so that a sample does not open files, unpickle and decompress.

Small cases are kept whole: as many as the dataset has fit into `KEPT_BYTES` of a process together. Of larger ones a few
stay open; their crops are read from the file each time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from study.curriculum.schedule import ROUNDED, VolumeRule, foreground_volumes
from study.nnunet.torch_tools import cpu_threads
from study.nnunet.transforms import Pipeline

KEPT_BYTES = 128 * 2**20
MOST_OPEN = 32


@dataclass(frozen=True, kw_only=True)
class Case:
    """One case as nnU-Net's dataset gives it.

    Attributes:
        image, segmentation: (channels, *axes), arrays or open files.
        previous: (*axes), segmentation of a cascade's previous stage.
        locations: voxels (0, *axes) by class, or tuple of classes.
    """

    image: Any
    segmentation: Any
    previous: Any
    locations: dict[Any, Any] | None


class Cases:
    """Opened cases of an nnU-Net dataset, by identifier."""

    def __init__(self, dataset: Any) -> None:
        self.identifiers = dataset.identifiers
        self._dataset = dataset
        self._most_bytes = KEPT_BYTES // max(1, len(dataset.identifiers))
        self._whole: dict[str, Case] = {}
        self._open: OrderedDict[str, Case] = OrderedDict()

    def load(self, identifier: str) -> Case:
        """The case, from memory if it is kept."""
        case = self._whole.get(identifier) or self._open.get(identifier)
        if case is None:
            return self._opened(identifier)
        if identifier in self._open:
            self._open.move_to_end(identifier)
        return case

    def _opened(self, identifier: str) -> Case:
        image, segmentation, previous, properties = self._dataset.load_case(identifier)
        parts = {"image": image, "segmentation": segmentation, "previous": previous}
        locations = properties["class_locations"]
        if sum(_nbytes(part) for part in (*parts.values(), *(locations or {}).values())) <= self._most_bytes:
            whole = {name: None if part is None else np.asarray(part[:]) for name, part in parts.items()}
            case = self._whole[identifier] = Case(**whole, locations=locations)
            return case
        case = self._open[identifier] = Case(**parts, locations=locations)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
        return case


def _nbytes(part: Any) -> int:
    if part is None:
        return 0
    return int(np.prod(np.shape(part), dtype=np.int64)) * np.dtype(getattr(part, "dtype", float)).itemsize


class StageLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's draws of cases and boxes, able to take several crops from each volume it opens (arXiv 2510.23241).

    With one crop per volume they are nnU-Net's own. With more, ceil(batch / crops) volumes are drawn, and `crops` says
    which of them are foreground-centred.
    """

    _data: Cases
    indices: list[str]
    batch_size: int
    oversample_foreground_percent: float
    patch_size: tuple[int, ...]
    final_patch_size: tuple[int, ...]

    def __init__(
        self,
        *args: Any,
        crops_per_volume: int,
        transforms: ComposeTransforms | None,
        volume_rule: VolumeRule = ROUNDED,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.crops_per_volume = crops_per_volume
        if crops_per_volume > 1:
            self._foreground = foreground_volumes(volume_rule, self._volumes, self.oversample_foreground_percent)
            self.get_do_oversample = self._is_foreground_volume
        size = self.final_patch_size[1:] if self.patch_size_was_2d else self.final_patch_size
        self._pipeline = Pipeline(transforms or ComposeTransforms([]), size)

    @property
    def _volumes(self) -> int:
        return math.ceil(int(self.batch_size) / self.crops_per_volume)

    def get_indices(self) -> list[str]:
        """Case identifiers of the samples of one batch."""
        drawn = np.random.choice(self.indices, self._volumes, replace=True)
        return [str(case) for case in np.repeat(drawn, self.crops_per_volume)[: self.batch_size]]

    def _is_foreground_volume(self, sample: int) -> bool:
        return self._foreground[sample // self.crops_per_volume]

    def generate_train_batch(self) -> dict[str, Any]:
        """Draw a batch: `data`, `target`, `keys`."""
        keys = self.get_indices()
        batch: list[torch.Tensor] = []
        with torch.no_grad(), cpu_threads(1):
            for index, key in enumerate(keys):
                sample = self._sample(self._data.load(key), self.get_do_oversample(index))
                labels = sample["segmentation"]
                parts = [sample["image"], *(labels if isinstance(labels, list) else [labels])]
                batch = batch or [torch.empty((self.batch_size, *part.shape), dtype=part.dtype) for part in parts]
                for whole, part in zip(batch, parts, strict=True):
                    whole[index] = part
        return {"data": batch[0], "target": batch[1:] if isinstance(labels, list) else batch[1], "keys": keys}

    def _sample(self, case: Case, foreground: bool) -> dict[str, Any]:
        lows, highs = self.get_bbox(case.image.shape[1:], foreground, case.locations)
        wide = [int(high - low) for low, high in zip(lows, highs, strict=True)]
        drawn = self._pipeline.draw_rotation((case.image.shape[0], *wide[self.patch_size_was_2d :]))
        size = wide if drawn else list(self.final_patch_size)
        # Rotation alone needs what lies around the patch.
        offsets = [whole // 2 - part // 2 for whole, part in zip(wide, size, strict=True)]
        lows = [int(low) + offset for low, offset in zip(lows, offsets, strict=True)]
        # A view of the wider box, as nnU-Net's is: over other strides means would differ in their last bits.
        middle = tuple(slice(offset, offset + part) for offset, part in zip(offsets, size, strict=True))
        image = np.empty((case.image.shape[0], *wide), np.float32)[(slice(None), *middle)]
        cut(case.image, lows, image, fill=0)
        parts = [case.segmentation] if case.previous is None else [case.segmentation, case.previous[None]]
        labels = np.empty((sum(part.shape[0] for part in parts), *size), np.int16)
        cut(case.segmentation, lows, labels[: case.segmentation.shape[0]], fill=-1)
        for part in parts[1:]:
            cut(part, lows, labels[-1:], fill=-1)
        if self.patch_size_was_2d:
            image, labels = image[:, 0], labels[:, 0]
        return self._pipeline.apply(torch.from_numpy(image), torch.from_numpy(labels), drawn)


def cut(array: Any, lows: Sequence[int], out: Any, *, fill: int) -> None:
    """Copy a box out of an array.

    Args:
        array: (channels, *axes), or an open file that is sliced like one.
        lows: first voxel per axis, may be negative.
        out: takes the box, (channels, *size).
        fill: value where the box is outside the array.
    """
    there, inside = [slice(None)], [slice(None)]
    for low, size, length in zip(lows, out.shape[1:], array.shape[1:], strict=True):
        first, last = min(max(low, 0), length), max(0, min(low + size, length))
        there.append(slice(first, last))
        inside.append(slice(first - low, last - low))
    found = array[tuple(there)]
    if found.shape != out.shape:
        out[:] = fill
    if found.size:
        out[tuple(inside)] = found
