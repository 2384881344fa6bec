"""What nnU-Net v2 cannot read in a dataset.json, raw or prepared, in words, before any other file is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from study.checks import is_whole

REQUIRED_KEYS = ("labels", "channel_names", "numTraining", "file_ending")
SHOWN_LETTERS = 80


def description_problems(description: Mapping[str, Any]) -> Iterator[str]:
    """What nnU-Net v2 cannot read in the dataset.json of a raw dataset."""
    missing = [key for key in REQUIRED_KEYS if key not in description]
    if "channel_names" in missing and "modality" in description:
        yield (
            "it names its channels in `modality` as nnU-Net v1 did; convert the dataset with "
            "`nnUNetv2_convert_old_nnUNet_dataset`, or give a task of the Decathlon as --msd"
        )
    if missing:
        yield f"it lacks {', '.join(missing)}; nnU-Net needs {', '.join(REQUIRED_KEYS)}"
    yield from training_problems(description)
    count = description.get("numTraining")
    if "numTraining" in description and not is_whole(count):
        yield f"numTraining is {_short(count)}, legal is the number of training cases"
    yield from _listed_problems(description.get("dataset"))


def training_problems(description: Mapping[str, Any]) -> Iterator[str]:
    """What cannot be trained with in a dataset.json; a prepared one may lack what is only needed to prepare it."""
    channels, ending = description.get("channel_names"), description.get("file_ending")
    wanted = {str(n) for n in range(len(channels))} if isinstance(channels, Mapping) else {""}
    if "channel_names" in description and not (channels and set(channels) == wanted and _are_words(channels.values())):
        yield f'channel_names is {_short(channels)}, legal are names by number: {{"0": "T1", "1": "T2"}}'
    if "labels" in description:
        yield from _label_problems(description["labels"], description.get("regions_class_order"))
    if "file_ending" in description and not (isinstance(ending, str) and ending.startswith(".")):
        yield f"file_ending is {_short(ending)}, legal is the end of the files' names, such as .nii.gz"


def _label_problems(labels: object, order: object) -> Iterator[str]:
    if not (isinstance(labels, Mapping) and all(map(_is_label, labels.values()))):
        yield f'labels is {_short(labels)}, legal are values by name: {{"background": 0, "tumour": 1}}'
        return
    if labels.get("background") != 0:
        yield f"labels is {_short(labels)}, which has no background of value 0"
    classes = {name: value for name, value in labels.items() if name != "ignore"}
    regions = [value for value in classes.values() if value not in (0, [0])]
    is_of_regions = any(isinstance(region, list) and len(region) > 1 for region in regions)
    if is_of_regions and not (isinstance(order, list) and len(order) == len(regions)):
        yield f"regions_class_order is {_short(order)}, legal is a list with a value for every region"
    values = sorted({v for value in classes.values() for v in (value if isinstance(value, list) else [value])})
    values += [labels["ignore"]] if "ignore" in labels else []
    if values != list(range(len(values))):
        yield f"label values are {' '.join(map(str, values))}, legal are consecutive ones: 0 1 2 …, ignore the last"


def _listed_problems(listed: object) -> Iterator[str]:
    if listed is not None and not (isinstance(listed, Mapping) and all(map(_is_case, listed.values()))):
        yield f'dataset is {_short(listed)}, legal are cases by name: {{"case": {{"images": ["…"], "label": "…"}}}}'


def _is_case(case: object) -> bool:
    return (
        isinstance(case, Mapping)
        and isinstance(case.get("images"), list)
        and _are_words([*case["images"], case.get("label")])
    )


def _is_label(value: object) -> bool:
    return is_whole(value) or (isinstance(value, list) and bool(value) and all(map(is_whole, value)))


def _are_words(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…"
