"""Cases of a dataset that a process has opened, kept so that a sample does not open files, unpickle and decompress.

Small cases are kept whole: as many as the dataset has fit into `KEPT_BYTES` of a process together. Of larger ones a few
stay open; their crops are read from the file each time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

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
