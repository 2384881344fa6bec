"""The steps of a preparation: convert or link, verify, fingerprint, plan, preprocess, install.

Every step works aside, in a folder that no other part looks at, and its product is renamed into place when whole. So
what lies in the dataset's folder is complete; an interrupted step is done again from its beginning, a finished one is
not done again. The plans file comes last: without it there is no prepared dataset.

The record (`pgps_prepared.json` beside the plans) says what was made of what. Nothing else reads it: a dataset that
nnU-Net's own commands prepared has none and is as good.

These functions set nnU-Net's environment variables, write to standard output and start process pools. They are meant
for a process of their own; see `study.nnunet.prepare`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import DataIntegrityError, InvalidInputError, MissingDataError, check_choice
from study.nnunet.datasets import (
    DESCRIPTION,
    LABELS_FOLDER,
    PREPARED_VARIABLE,
    RAW_VARIABLE,
    SPLITS,
    PreparedDataset,
    dataset_id,
)
from study.nnunet.integrity import oddities, training_cases, verify_dataset
from study.nnunet.plans import PLANS_OF_PLANNER, RECORD_NAME, inherited, small_plans
from study.nnunet.prepare.sources import (
    PlansRecipe,
    RawFolder,
    conversion_folder,
    convert,
    inventory,
    is_inventory,
    link,
    visible,
)

FINGERPRINT = "dataset_fingerprint.json"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step that begins: its name, how many cases it goes through, and where finished cases can be counted."""

    name: str
    cases: int = 0
    watched: Path | None = None
    pattern: str = ""

    def cases_done(self) -> int:
        """How many of them are done, as far as files tell."""
        return sum(1 for _ in self.watched.glob(self.pattern)) if self.watched is not None else 0


# Told of every step that begins, and of what had to be assumed.
Begin = Callable[[Step], None]
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PreparationJob:
    """One preparation.

    Attributes:
        source: images and labels.
        raw: nnU-Net's raw folder; preprocessed: its folder of preprocessed datasets.
        recipe: what is made.
        workers: processes.
    """

    source: RawFolder
    raw: Path
    preprocessed: Path
    recipe: PlansRecipe
    workers: int

    @property
    def raw_folder(self) -> Path:
        """The raw dataset."""
        return self.raw / self.source.dataset

    @property
    def folder(self) -> Path:
        """The prepared dataset."""
        return self.preprocessed / self.source.dataset

    @property
    def prepared(self) -> PreparedDataset:
        """The same, before its dataset.json is there."""
        return PreparedDataset(name=self.source.dataset, folder=self.folder, description={})

    @property
    def aside_root(self) -> Path:
        """Stands in for nnU-Net's folder of preprocessed datasets while steps are at work."""
        return self.preprocessed / f".preparing-{self.source.dataset}"

    @property
    def aside(self) -> Path:
        """The dataset's folder in there."""
        return self.aside_root / self.source.dataset

    def record(self) -> dict[str, Any]:
        """The record of the prepared dataset, without plans when there is none.

        Raises:
            MissingDataError: it cannot be read.
        """
        path = self.folder / RECORD_NAME
        try:
            record = files.read_json(path) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise MissingDataError(f"{path} cannot be read ({error}); delete it to verify the dataset again") from error
        return {"plans": {}, **record}

    def amend(self, **changed: Any) -> None:
        """Change entries of the record."""
        files.write_json(self.folder / RECORD_NAME, {**self.record(), **changed})

    def is_verified(self) -> bool | None:
        """Whether the raw dataset is as it was when it was verified; None if it never was."""
        recorded = self.record().get("inventory")
        return is_inventory(recorded, self.raw_folder) if recorded else None


def run_steps(job: PreparationJob, begin: Begin, note: Note) -> None:
    """Prepare a dataset, passing over what is already there.

    Raises:
        DataIntegrityError: the dataset contradicts itself.
        InvalidInputError: the planner or a configuration does not exist, or a small plan's patch does not fit.
    """
    started = time.perf_counter()
    planner = planner_class(job.recipe.planner)
    _make_raw_dataset(job, begin, note)
    # An empty folder aside that knows what is already prepared.
    os.environ[RAW_VARIABLE], os.environ[PREPARED_VARIABLE] = str(job.raw), str(job.aside_root)
    shutil.rmtree(job.aside_root, ignore_errors=True)
    job.aside.mkdir(parents=True)
    for name in (FINGERPRINT, SPLITS, f"{job.recipe.plans}.json"):
        if (job.folder / name).exists():
            shutil.copyfile(job.folder / name, job.aside / name)
    cases = list(training_cases(job.raw_folder, files.read_json(job.raw_folder / DESCRIPTION)))
    _verify(job, begin, note, len(cases))
    _fingerprint(job, begin, len(cases))
    configurations = _plan(job, planner, begin)
    identifiers = {n: inherited(configurations, n)["data_identifier"] for n in job.recipe.configurations}
    for configuration, identifier in identifiers.items():
        _preprocess(job, configuration, identifier, begin, cases)
    _install(job, next(iter(identifiers.values())), time.perf_counter() - started)
    shutil.rmtree(job.aside_root)


def step_count(recipe: PlansRecipe) -> int:
    """How many steps begin at most: start, raw dataset, verify, fingerprint, plan, one per configuration."""
    return 5 + len(recipe.configurations)


def preprocessed_cases(folder: Path) -> set[str]:
    """Identifiers of whole cases: nnU-Net writes a case's properties last."""
    return {path.name.removesuffix(".pkl") for path in folder.glob("*.pkl")}


def planner_class(name: str) -> Any:
    """nnU-Net's planner of this name; raises InvalidInputError when there is none."""
    import nnunetv2
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(Path(nnunetv2.__path__[0]) / "experiment_planning")
    found = recursive_find_python_class(folder, name, "nnunetv2.experiment_planning")
    if not isinstance(found, type) or not issubclass(found, ExperimentPlanner):
        legal = ", ".join(PLANS_OF_PLANNER) + " or another planner of nnU-Net"
        raise InvalidInputError(field="--planner", received=name, legal=legal)
    return found


def _make_raw_dataset(job: PreparationJob, begin: Begin, note: Note) -> None:
    if job.source.kind == "raw":
        link(job.source, job.raw)
        return
    aside = conversion_folder(job.raw, job.source)
    shutil.rmtree(aside, ignore_errors=True)
    if not job.raw_folder.exists():
        done, cases = aside / job.source.dataset / "labelsTr", sum(1 for _ in visible(job.source.folder / "labelsTr"))
        begin(Step(name="converting", cases=cases, watched=done, pattern="*"))
        convert(job.source, job.raw, workers=job.workers, note=note)


def _verify(job: PreparationJob, begin: Begin, note: Note, cases: int) -> None:
    verified = job.is_verified()
    if verified:
        return
    current = inventory(job.raw_folder)
    if verified is False:
        # What an unfinished preparation made from images that have changed since.
        for path in (*job.aside.iterdir(), *job.folder.iterdir()):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix == ".json":
                path.unlink()
    begin(Step(name=f"verifying {cases} cases"))
    verify_dataset(job.raw_folder, workers=job.workers)
    for oddity in oddities(job.raw_folder, files.read_json(job.raw_folder / DESCRIPTION), workers=job.workers):
        note(oddity)
    job.amend(inventory=current, source={"kind": job.source.kind, "folder": str(job.source.folder)})


def _fingerprint(job: PreparationJob, begin: Begin, cases: int) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset

    if (job.folder / FINGERPRINT).exists():
        return
    begin(Step(name=f"measuring {cases} cases"))
    number = dataset_id(job.source.dataset)
    try:
        extract_fingerprint_dataset(number, num_processes=job.workers, verbose=False, show_progress_bar=False)
    except IndexError as error:  # percentiles of no voxels
        labels = job.raw_folder / "labelsTr"
        raise DataIntegrityError(f"{labels}: no label has a voxel of a class, all are background") from error
    copied = shutil.copyfile(job.aside / FINGERPRINT, job.aside / f"copy of {FINGERPRINT}")
    copied.replace(job.folder / FINGERPRINT)


def _plan(job: PreparationJob, planner: Any, begin: Begin) -> Mapping[str, Any]:
    """Configurations of plans that already exist, or of new ones; the preprocessor finds them aside."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    recipe, path = job.recipe, job.aside / f"{job.recipe.plans}.json"
    if not path.exists():
        begin(Step(name="planning"))
        plan_experiment_dataset(dataset_id(job.source.dataset), planner, overwrite_plans_name=recipe.planned_as)
        if recipe.small is not None:
            planned = files.read_json(job.aside / f"{recipe.planned_as}.json")
            files.write_json(path, small_plans(planned, recipe.configurations, recipe.plans, recipe.small))
    planned_configurations: dict[str, Any] = files.read_json(path)["configurations"]
    for configuration in recipe.configurations:
        check_choice("--configurations", configuration, list(planned_configurations))
    return planned_configurations


def _preprocess(job: PreparationJob, configuration: str, identifier: str, begin: Begin, cases: list[str]) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    made = job.aside / identifier
    if preprocessed_cases(job.folder / identifier) >= set(cases):
        return
    begin(Step(name=f"preprocessing {configuration}", cases=len(cases), watched=made, pattern="*.pkl"))
    if not (job.aside / DESCRIPTION).exists():
        shutil.copyfile(job.raw_folder / DESCRIPTION, job.aside / DESCRIPTION)
    number = dataset_id(job.source.dataset)
    preprocess_dataset(number, job.recipe.plans, (configuration,), (job.workers,), show_progress_bar=False)
    for part in (made, job.aside / LABELS_FOLDER):
        target = job.folder / part.name
        if target.is_dir():
            # Incomplete.
            shutil.rmtree(target)
        part.replace(target)


def _install(job: PreparationJob, identifier: str, seconds: float) -> None:
    """Put the small files in place, the plans last, and note what was made."""
    name = job.recipe.plans
    for file in (SPLITS, DESCRIPTION, f"{name}.json"):
        if (job.aside / file).exists() and not (job.folder / file).exists():
            (job.aside / file).replace(job.folder / file)
        if file == SPLITS:
            job.prepared.ensure_splits(identifier)
    record = job.record()["plans"]
    earlier = record.get(name, {})
    entry = {
        "recipe": job.recipe.identity(),
        "configurations": sorted({*earlier.get("configurations", []), *job.recipe.configurations}),
        "nnunetv2": metadata.version("nnunetv2"),
        "seconds": round(earlier.get("seconds", 0.0) + seconds, 1),
    }
    job.amend(plans={**record, name: entry})
