"""Training cases read as nnU-Net stored them, by nnU-Net's own dataset class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from study import files
from study.datasets import PreparedDataset
from study.errors import MissingDataError
from study.plan import NetworkPlan, inherited
from study.ranking.images import CaseImage


@dataclass(frozen=True, kw_only=True)
class CaseFolder:
    """Preprocessed cases of one configuration.

    Attributes:
        path: the folder.
        spacing: millimetres per axis after resampling; of the last two axes alone for a 2D configuration.
        transpose: nnU-Net's order of axes, in terms of the image file's.
    """

    path: Path
    spacing: tuple[float, ...]
    transpose: tuple[int, ...]

    def read(self, case: str) -> CaseImage:
        """One case.

        Raises:
            MissingDataError: it cannot be read.
        """
        try:
            data, labels, _, properties = _dataset(self.path).load_case(case)
            return CaseImage(
                voxels=np.asarray(data[:], dtype=np.float32),
                spacing=self._spacing(properties),
                labels=np.asarray(labels[0]),
            )
        except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise MissingDataError(
                f"case {case} in {self.path} cannot be read ({reason}); run `python -m study prepare` again"
            ) from error

    def _spacing(self, properties: dict[str, Any]) -> tuple[float, ...]:
        original = [float(properties["spacing"][axis]) for axis in self.transpose]
        # A 2D configuration resamples within the slices alone.
        return (*original[: len(original) - len(self.spacing)], *self.spacing)


def case_folder(dataset: PreparedDataset, plan: NetworkPlan) -> CaseFolder:
    """Where the cases of a plan's configuration are.

    Raises:
        MissingDataError: the plans do not say how cases were resampled.
    """
    path = dataset.folder / f"{plan.plans}.json"
    try:
        document = files.read_json(path)
        spacing = inherited(document["configurations"], plan.configuration)["spacing"]
        transpose: Sequence[int] = document["transpose_forward"]
    except (OSError, ValueError, LookupError) as error:
        raise MissingDataError(f"{path} does not say how cases were resampled ({error}); plan it again") from error
    return CaseFolder(
        path=dataset.folder / plan.data_identifier,
        spacing=tuple(float(step) for step in spacing),
        transpose=tuple(int(axis) for axis in transpose),
    )


@lru_cache(maxsize=2)
def _dataset(folder: Path) -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    return infer_dataset_class(str(folder))(str(folder))
