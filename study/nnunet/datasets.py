"""Where prepared data lies and whether a trial can run on it: folders, dataset names, dataset.json, plans, splits.

Two ways to point at data: `--data DIR` (with `nnUNet_raw` and `nnUNet_preprocessed` inside), or nnU-Net's environment
variables. Prepared data may be read-only, provided nnU-Net's `splits_final.json` exists: otherwise every trial would
race to write it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import InvalidInputError, MissingDataError, is_name, is_whole
from study.common.serialize import sha256_of_json
from study.nnunet.plans import DEFAULT_PLANS, NetworkPlan, preparing, read_plan

# So begin all variables that nnU-Net reads: to find data, to compile, to log elsewhere, to find trainers.
NNUNET_PREFIX = "nnUNet_"
RAW_VARIABLE = "nnUNet_raw"
PREPARED_VARIABLE = "nnUNet_preprocessed"
DESCRIPTION, SPLITS, LABELS_FOLDER = "dataset.json", "splits_final.json", "gt_segmentations"
# nnU-Net's own: five folds, seeded 12345.
FOLDS, SPLIT_SEED = 5, 12345

REQUIRED_KEYS = ("labels", "channel_names", "numTraining", "file_ending")
SHOWN_LETTERS = 80


def _are_words(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_channels(names: object) -> bool:
    numbered = isinstance(names, Mapping) and bool(names) and set(names) == {str(n) for n in range(len(names))}
    return numbered and _are_words(names.values())  # type: ignore[attr-defined]


def _are_cases(listed: object) -> bool:
    # nnU-Net writes files of a case's name.
    return isinstance(listed, Mapping) and all(map(is_name, listed)) and all(map(_is_case, listed.values()))


def _is_case(case: object) -> bool:
    listed = isinstance(case, Mapping) and isinstance(case.get("images"), list) and bool(case["images"])
    return listed and _are_words([*case["images"], case.get("label")])  # type: ignore[index,attr-defined]


_LEGAL: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "channel_names": (_are_channels, 'are names by number: {"0": "T1", "1": "T2"}'),
    "file_ending": (
        lambda ending: isinstance(ending, str) and ending.startswith("."),
        "is the end of the files' names, such as .nii.gz",
    ),
    "numTraining": (is_whole, "is the number of training cases"),
    "dataset": (_are_cases, 'are cases by name: {"case": {"images": ["…"], "label": "…"}}'),
}


def description_problems(description: Mapping[str, Any], *, prepared: bool = False) -> Iterator[str]:
    """What nnU-Net v2 cannot read in a dataset.json; a prepared one may lack what is only needed to prepare it."""
    missing = [key for key in REQUIRED_KEYS if key not in description]
    if missing and not prepared:
        if "channel_names" in missing and "modality" in description:
            yield (
                "it names its channels in `modality` as nnU-Net v1 did; convert the dataset with "
                "`nnUNetv2_convert_old_nnUNet_dataset`, or give a task of the Decathlon as --msd"
            )
        yield f"it lacks {', '.join(missing)}; nnU-Net needs {', '.join(REQUIRED_KEYS)}"
    if "labels" in description:
        yield from _label_problems(description["labels"], description.get("regions_class_order"))
    for key, (holds, legal) in _LEGAL.items():
        decides = not prepared or key in ("channel_names", "file_ending")
        if decides and key in description and not holds(description[key]):
            yield f"{key} is {_short(description[key])}, legal {legal}"


def _label_problems(labels: object, order: object) -> Iterator[str]:
    if not (isinstance(labels, Mapping) and all(map(_is_label, labels.values()))):
        yield f'labels is {_short(labels)}, legal are values by name: {{"background": 0, "tumour": 1}}'
        return
    if labels.get("background") != 0:
        yield f"labels is {_short(labels)}, which has no background of value 0"
    classes = [value for name, value in labels.items() if name != "ignore"]
    regions = [value for value in classes if value not in (0, [0])]
    is_of_regions = any(isinstance(region, list) and len(region) > 1 for region in regions)
    if is_of_regions and not _is_order(order, regions):
        yield (
            f"regions_class_order is {_short(order)}, legal is a list with a value for every region, of its own, "
            f"each once: predictions have no other; the regions are {_short(regions)}"
        )
    values = sorted({v for value in classes for v in (value if isinstance(value, list) else [value])})
    values += [labels["ignore"]] if "ignore" in labels else []
    if values != list(range(len(values))):
        yield f"label values are {' '.join(map(str, values))}, legal are consecutive ones: 0 1 2 …, ignore the last"


def _is_order(order: object, regions: Sequence[Any]) -> bool:
    if not isinstance(order, list) or len(order) != len(regions) or not all(map(is_whole, order)):
        return False
    lists = [region if isinstance(region, list) else [region] for region in regions]
    return all(map(list.__contains__, lists, order)) and len({*order}) == len(order)


def _is_label(value: object) -> bool:
    return is_whole(value) or (isinstance(value, list) and bool(value) and all(map(is_whole, value)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}…"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Training and validation cases of one fold."""

    training: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def overlap(self) -> tuple[str, ...]:
        """Cases that are trained on and validated with: their Dice is too good."""
        return tuple(sorted({*self.training} & {*self.validation}))

    @property
    def sha256(self) -> str:
        """Over both lists."""
        return sha256_of_json([self.training, self.validation])


def _read_splits(path: Path) -> list[Split]:
    try:
        folds = [(fold["train"], fold["val"]) for fold in files.read_json(path)]
        if not all(isinstance(names, list) for fold in folds for names in fold):
            raise TypeError("a fold has no lists of cases")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise MissingDataError(f"{path} is no split as nnU-Net writes it ({type(error).__name__}: {error})") from error
    if not folds:
        raise MissingDataError(f"{path} has no fold; delete it, and nnU-Net's own split is made, or write one")
    return [Split(training=tuple(training), validation=tuple(validation)) for training, validation in folds]


def too_few_cases(name: str, cases: int, path: Path) -> MissingDataError:
    """Fewer cases than nnU-Net's own split has folds."""
    return MissingDataError(
        f"{name} has {cases} cases, nnU-Net's five folds need at least {FOLDS}: write your own {path}, a list with "
        '{"train": ["case_1", …], "val": ["case_2"]} for each fold, and repeat the command'
    )


@dataclass(frozen=True, kw_only=True)
class DataPaths:
    """Absolute paths of nnU-Net's raw and preprocessed folders; raw is None when only prepared data is known."""

    raw: Path | None
    preprocessed: Path


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """A dataset's folder under `nnUNet_preprocessed`.

    Attributes:
        name: nnU-Net's name, `Dataset004_Hippocampus`.
        folder: absolute path.
        description: content of dataset.json.
    """

    name: str
    folder: Path
    description: dict[str, Any]

    def plans_names(self) -> list[str]:
        """Names of all plans prepared for this dataset."""
        return sorted(path.stem for path in self.folder.glob("*.json") if _is_plans(path))

    def choose_plans(self, name: str | None) -> str:
        """The named plans; without a name the only ones there are, or nnU-Net's default.

        Raises:
            MissingDataError: no such plans, or none is meant.
        """
        names = self.plans_names()
        if not names:
            raise MissingDataError(f"no plans in {self.folder}; run `python -m study prepare`")
        default = names[0] if len(names) == 1 else DEFAULT_PLANS
        chosen = default if name is None else name
        if chosen not in names and (self.folder / f"{chosen}.json").exists():
            raise MissingDataError(f"{self.folder / f'{chosen}.json'} is no plans file as nnU-Net writes it")
        if chosen not in names:
            legal = f"legal for {self.name} is one of {', '.join(names)}"
            remedy = "" if name is None else f"; prepared by `{self._preparing(name)}`"
            raise MissingDataError(f"plans: received {name!r}, {legal}{remedy}")
        return chosen

    def _preparing(self, plans: str, configuration: str = "") -> str:
        root, number = self.folder.parent, dataset_id(self.name)
        data = root.parent if root.name == PREPARED_VARIABLE else None
        return preparing(self.folder, plans, number=number, data=data, configuration=configuration)

    def plan(self, plans: str, configuration: str) -> NetworkPlan:
        """One configuration of one plan.

        Raises:
            MissingDataError: the file holds plans of another dataset or name; see `plans.read_plan` for other errors.
        """
        path = self.folder / f"{plans}.json"
        try:
            found = read_plan(path, configuration)
        except InvalidInputError as error:
            field = error.field if error.field == "configuration" else f"{error.field} of {plans}"
            raise InvalidInputError(**{**vars(error), "field": field}) from None
        if (found.dataset, found.plans) != (self.name, plans):
            raise MissingDataError(
                f"{path} holds {found.plans} of {found.dataset} by its own words, not {plans} of {self.name}; "
                f"`nnUNetv2_move_plans_between_datasets` gives plans to another dataset or name"
            )
        return found

    def check_preprocessed(self, plan: NetworkPlan) -> None:
        """Raise MissingDataError unless the configuration's preprocessed cases are there."""
        folder = self.folder / plan.data_identifier
        if not folder.is_dir() or not any(folder.iterdir()):
            command = self._preparing(plan.plans, plan.configuration)
            raise MissingDataError(
                f"no preprocessed cases for {self.name} {plan.plans} {plan.configuration} at {folder}; "
                f"run `{command}`, or `nnUNetv2_preprocess -plans_name {plan.plans} -c {plan.configuration}`"
            )

    def check_cases(self, plan: NetworkPlan, split: Split) -> None:
        """Raise MissingDataError unless a fold's cases are preprocessed and what nnU-Net validates against is there."""
        self.check_preprocessed(plan)
        wanted = [self.folder / plan.data_identifier / f"{case}.pkl" for case in (*split.training, *split.validation)]
        missing = [path for path in (*wanted, *self.references(split.validation)) if not path.exists()]
        if missing:
            raise MissingDataError(
                f"{len(missing)} files of {self.name} are missing, the first is {missing[0]}; "
                "run `python -m study prepare` or `nnUNetv2_preprocess`, or correct splits_final.json"
            )

    def references(self, cases: Sequence[str]) -> list[Path]:
        """What nnU-Net compares predictions of these cases with."""
        ending = self.description.get("file_ending", "")
        return [self.folder / LABELS_FOLDER / f"{case}{ending}" for case in cases]

    def split(self, fold: int) -> Split:
        """Cases of one fold.

        Raises:
            MissingDataError: no splits_final.json, see `ensure_splits`, or a broken one.
            InvalidInputError: the file has no such fold.
        """
        path = self.folder / SPLITS
        if not path.exists():
            raise MissingDataError(f"no {path}; run `python -m study prepare` where the folder can be written")
        splits = _read_splits(path)
        if not 0 <= fold < len(splits):
            raise InvalidInputError(field="fold", received=fold, legal=f"0 to {len(splits) - 1} ({path.name})")
        return splits[fold]

    def trainable_split(self, fold: int) -> Split:
        """The same, if something can be trained and validated with it.

        Raises:
            MissingDataError: as `split`, and for a fold without training or validation cases.
        """
        split = self.split(fold)
        for kind, cases in (("training", split.training), ("validation", split.validation)):
            if not cases or not _are_words(cases) or len({*cases}) < len(cases):
                what = "has no" if not cases else "names some twice, or by no word, of its"
                raise MissingDataError(f"{self.folder / SPLITS}: fold {fold} {what} {kind} cases; correct the file")
        return split

    def ensure_splits(self, data_identifier: str) -> None:
        """Write nnU-Net's own five-fold split if the dataset has none.

        Raises:
            MissingDataError: there is none and the folder cannot be written.
        """
        path = self.folder / SPLITS
        if path.exists():
            return
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        folder = str(self.folder / data_identifier)
        try:
            cases = sorted(infer_dataset_class(folder).get_identifiers(folder))
        except (AssertionError, LookupError, OSError) as error:
            raise MissingDataError(f"{folder} holds no preprocessed cases as nnU-Net writes them ({error})") from error
        if len(cases) < FOLDS:
            raise too_few_cases(self.name, len(cases), path)
        try:
            files.write_json(path, generate_crossval_split(cases, seed=SPLIT_SEED, n_splits=FOLDS))
        except OSError as error:
            raise MissingDataError(
                f"{path} is missing and cannot be written ({error.strerror}); trials would race to make it: "
                "create it once with `nnUNetv2_train` or in a writable copy"
            ) from error


def data_paths(data: Path | None) -> DataPaths:
    """Folders under `--data`, or those of nnU-Net's environment variables.

    Raises:
        MissingDataError: neither is given.
    """
    if data is not None:
        root = data.expanduser().resolve()
        return DataPaths(raw=root / RAW_VARIABLE, preprocessed=root / PREPARED_VARIABLE)
    prepared, raw = os.environ.get(PREPARED_VARIABLE), os.environ.get(RAW_VARIABLE)
    if not prepared:
        raise MissingDataError(f"no data folder: give --data DIR or set {PREPARED_VARIABLE} as nnU-Net does")
    return DataPaths(raw=Path(raw).resolve() if raw else None, preprocessed=Path(prepared).resolve())


def find_dataset(paths: DataPaths, dataset: str | int) -> PreparedDataset:
    """The prepared dataset of an id (`4`), or a full name.

    Raises:
        MissingDataError: none or several match, or its dataset.json is missing or broken.
    """
    wanted = str(dataset)
    names = sorted(p.name for p in paths.preprocessed.glob("Dataset*_*") if p.is_dir())
    beginning = f"Dataset{int(wanted):03d}_" if re.fullmatch(r"\d{1,5}", wanted) else None
    matches = [name for name in names if (name.startswith(beginning) if beginning else name == wanted)]
    if len(matches) != 1:
        found = ", ".join(matches or names) or "nothing"
        raise MissingDataError(
            f"dataset: received {wanted!r}, found {found} in {paths.preprocessed}; "
            "run `python -m study prepare`, or give the full name"
        )
    path = paths.preprocessed / matches[0] / DESCRIPTION
    try:
        description = files.read_json(path)
    except (OSError, ValueError) as error:
        raise MissingDataError(f"{path} is missing or broken ({error}); `python -m study prepare` makes it") from error
    if not isinstance(description, dict) or "labels" not in description:
        raise MissingDataError(f"{path} names no labels")
    for problem in description_problems(description, prepared=True):
        raise MissingDataError(f"{path}: {problem}")
    return PreparedDataset(name=matches[0], folder=path.parent, description=description)


def dataset_id(name: str) -> int:
    """The number in a dataset's name."""
    return int(name.removeprefix("Dataset").split("_")[0])


def _is_plans(path: Path) -> bool:
    try:
        document = files.read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "plans_name" in document and "configurations" in document
