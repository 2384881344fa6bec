"""The worst validation cases of one configuration, with image, label and prediction side by side.

Pictures need the prediction that the trial's validation stored, and the raw images and labels that it recorded the way
to. Three slices of a case cut its first axis (z) where most voxels differ between label and prediction, cropped
to both. Without one of the files there is a table and a sentence.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analysis.figures.display_items import DisplayItem
from analysis.figures.sheet import EDGE, Sheet
from analysis.figures.style import METHOD_STYLES, Layout
from analysis.statistics.study_results import StudyResults, find_trial
from analysis.tables.format import Table, without_empty
from analysis.tables.frame import FINISHED, KEY
from analysis.tables.rows import FOREGROUND
from study.common.errors import StudyError
from study.store.trial_folder import TrialFolder

_MOST_ROWS, _MOST_PICTURES = 8, 4
_SLICES = 3
# Voxels around label and prediction, and the least extent of a picture.
_AROUND, _LEAST = 6, 24
_RAW, _OPACITY = "nnUNet_raw", 0.55
_PAINTS = tuple(METHOD_STYLES[name].paint.light for name in ("pgps+", "pgps", "rpss", "performance", "efficiency"))


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Slices of one case.

    Attributes:
        case: its name; dice: of the prediction.
        slices: `_SLICES` × three RGB pictures (y, x, 3) of 0 to 1: image, label on it, prediction on it.
        aspect: of a voxel, height / width.
    """

    case: str
    dice: float
    slices: tuple[tuple[NDArray[np.float64], ...], ...]
    aspect: float


def worst_cases(results: StudyResults, point: pd.Series[Any]) -> pd.DataFrame:
    """The foreground rows of the cases of a point, the lowest Dice first; of several seeds the lowest.

    Returns:
        Columns of the cases, with `fold` and the trial's.
    """
    cases = results.tables.cases
    trials = results.tables.trials
    mine = trials[(trials["point_id"] == point["point_id"]) & (trials["state"] == FINISHED)]
    rows = cases[cases["label"] == FOREGROUND].dropna(subset="dice").merge(mine[[*KEY, "fold", "dataset"]], on=KEY)
    return rows.sort_values(["dice", "case", "trial_id"], kind="stable").drop_duplicates("case", ignore_index=True)


def failures(results: StudyResults, point: pd.Series[Any]) -> tuple[DisplayItem | None, str]:
    """The item of a point's worst cases, if any has a Dice, and why there are no pictures, if there are none."""
    worst = worst_cases(results, point).head(_MOST_ROWS)
    if worst.empty:
        return None, "Worst cases: no validation case of a finished trial has a Dice."
    try:
        pictures = [_picture(results.folders, row) for row in worst.head(_MOST_PICTURES).to_dict("records")]
        why = ""
    except (StudyError, OSError, RuntimeError, ValueError) as error:
        pictures, why = [], f"No pictures of the worst cases: {str(error).splitlines()[0]}."
    lowest = worst.iloc[0]
    item = DisplayItem(
        stem="worst_cases",
        heading=f"The worst cases of {point['summary']}",
        draw=(lambda layout: _draw(pictures, str(point["summary"]), layout)) if pictures else None,
        alt=f"Three slices of each of the {len(pictures)} worst cases: image, label and prediction. The lowest Dice is "
        f"{lowest['dice']:.3f}, of {lowest['case']}.",
        notes=(
            "Image, label and prediction of three slices, where most voxels differ between label and prediction; a "
            "colour for each class.",
            "Of several seeds, the lowest Dice of a case.",
        )
        if pictures
        else (),
        data=worst[[*KEY, "fold", "case", "dice", "nsd", "hd95_mm"]],
        table=_table(worst),
        caption="Cases with the lowest Dice",
    )
    return item, why


def _table(worst: pd.DataFrame) -> Table:
    names = without_empty(worst, ["dice", "nsd", "hd95_mm"])
    labels = {"dice": "Dice", "nsd": "NSD", "hd95_mm": "HD95 [mm]"}
    return Table(
        headings=("Case", "Fold", "Trial", *(labels[name] for name in names)),
        numeric=(False, True, False, *(True for _ in names)),
        rows=tuple(
            (row["case"], str(row["fold"]), row["trial_id"], *(f"{row[name]:.4g}" for name in names))
            for row in worst.to_dict("records")
        ),
    )


def _picture(folders: Sequence[Path], row: dict[Any, Any]) -> Picture:
    """Of a case.

    Raises:
        FileNotFoundError: a file is not where it should be; RuntimeError, ValueError: it cannot be read, or used.
    """
    folder = find_trial(folders, row["trial_id"])
    if folder is None:
        raise FileNotFoundError(f"trial {row['trial_id']} is not in the folders that were read")
    prediction = _found(folder.results_path, f"**/fold_{row['fold']}/validation/{row['case']}.*", "prediction")
    raw = _raw(folder) / row["dataset"]
    label = _found(raw / "labelsTr", f"{row['case']}.*", "label")
    image = _found(raw / "imagesTr", f"{row['case']}_0000.*", "image")
    (grey, spacing), (truth, _), (found, _) = map(_read, (image, label, prediction))
    if not grey.shape == truth.shape == found.shape:
        raise ValueError(f"image, label and prediction of {row['case']} differ in shape")
    return Picture(
        case=row["case"],
        dice=row["dice"],
        slices=tuple(_slices(grey, np.rint(truth), np.rint(found))),
        aspect=spacing[1] / spacing[0],
    )


def _raw(folder: TrialFolder) -> Path:
    """nnU-Net's raw folder, beside the preprocessed one that the trial recorded, or its variable's."""
    recorded = [attempt.preprocessed for attempt in folder.attempts() if attempt.preprocessed]
    beside = Path(recorded[-1]).parent / _RAW if recorded else None
    if beside is not None and beside.is_dir():
        return beside
    if _RAW in os.environ:
        return Path(os.environ[_RAW])
    raise FileNotFoundError(f"no raw images at {beside or 'a recorded place'}; set {_RAW}")


def _found(folder: Path, pattern: str, kind: str) -> Path:
    found = sorted(path for path in folder.glob(pattern) if path.suffix not in (".json", ".npz", ".pkl"))
    if not found:
        raise FileNotFoundError(f"no {kind} {pattern} in {folder}")
    return found[0]


def _read(path: Path) -> tuple[NDArray[np.float64], tuple[float, ...]]:
    """An array (z, y, x) and the spacing (x, y, …)."""
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    array = np.asarray(SimpleITK.GetArrayFromImage(image), dtype=float)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array.mean(axis=-1)
    return (array if array.ndim == 3 else array[None]), image.GetSpacing()


def _slices(grey: NDArray[Any], truth: NDArray[Any], found: NDArray[Any]) -> list[tuple[NDArray[np.float64], ...]]:
    wrong, either = truth != found, (truth > 0) | (found > 0)
    counts = (wrong if wrong.any() else either if either.any() else np.ones_like(either)).sum(axis=(1, 2))
    share = np.cumsum(counts) / counts.sum()
    places = [int(np.searchsorted(share, (n + 0.5) / _SLICES)) for n in range(_SLICES)]
    box = tuple(_range(np.flatnonzero(either.any(axis=(0, 2 - axis))), either.shape[axis + 1]) for axis in (0, 1))
    low, high = np.percentile(grey, [1, 99])
    shades = np.clip((grey - low) / ((high - low) or 1.0), 0, 1)
    pictures: list[tuple[NDArray[np.float64], ...]] = []
    for z in places:
        plain = np.repeat(shades[z][box][..., None], 3, axis=-1)
        pictures.append((plain, _painted(plain, truth[z][box]), _painted(plain, found[z][box])))
    return pictures


def _range(at: NDArray[np.int64], length: int) -> slice:
    """From the first to the last place where anything is, and some voxels around it."""
    low, high = (int(at[0]) - _AROUND, int(at[-1]) + _AROUND + 1) if len(at) else (0, length)
    lacking = max(0, _LEAST - (high - low))
    return slice(max(0, low - lacking // 2), min(length, high + lacking // 2))


def _painted(plain: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgb

    painted = plain.copy()
    for label in np.unique(labels[labels > 0]):
        color = np.array(to_rgb(_PAINTS[(int(label) - 1) % len(_PAINTS)]))
        painted[labels == label] = (1 - _OPACITY) * painted[labels == label] + _OPACITY * color
    return painted


def _draw(pictures: Sequence[Picture], summary: str, layout: Layout) -> Figure:
    """A row for each case, on a narrow page for each slice."""
    columns, rows = (9, len(pictures)) if layout.rail else (3, 3 * len(pictures))
    sheet = Sheet(
        layout=layout,
        title=f"The worst cases of {summary}",
        subject="Image, label and prediction in three slices",
        rows=rows,
        columns=columns,
        panel_height=1.05,
        left=EDGE,
        gap_across=0.06,
        gap_down=0.24,
        head=0.2,
        foot=0.1,
    )
    with sheet.drawn() as (figure, panels):
        for number, picture in enumerate(pictures):
            for place, shown in enumerate(one for slices in picture.slices for one in slices):
                panel = panels[9 * number + place]
                panel.imshow(shown, aspect=picture.aspect, interpolation="none")
                panel.set_axis_off()
                if place == 0:
                    words = f"{picture.case}, Dice {picture.dice:.3f}"
                    panel.set_title(words, loc="left", fontsize=8.3, pad=3)
    return figure
