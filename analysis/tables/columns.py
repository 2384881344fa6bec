"""The columns of the tables: name, label, unit, dtype and meaning of every one, in one place.

Missing is missing everywhere (NaN, NA, an empty cell of a CSV): of a trial that has not finished, of energy that was
not measured. No column holds 0 for "unknown". Units are those of the files; pages and figures scale them for reading.

What a front may be drawn over: each objective with its column, direction, label and unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from study.common.errors import InvalidInputError
from study.common.setting import Dtype, settings_of
from study.curriculum.schemes import Axes
from study.store.specification import PLANS, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table.

    Attributes:
        name: in frames and files.
        label: on pages and axes, without the unit.
        unit: as printed after the label; empty for counts, words and shares.
        dtype: in pandas.
        decimals: digits after the point on pages; None keeps three significant ones of amounts with a unit.
        meaning: in words.
    """

    name: str
    label: str
    unit: str = ""
    dtype: Dtype
    decimals: int | None = None
    meaning: str


def _words(name: str, label: str, meaning: str) -> Column:
    return Column(name=name, label=label, dtype="str", meaning=meaning)


def _count(name: str, label: str, meaning: str) -> Column:
    return Column(name=name, label=label, dtype="Int64", meaning=meaning)


def _number(name: str, label: str, meaning: str, unit: str = "", decimals: int | None = None) -> Column:
    return Column(name=name, label=label, unit=unit, dtype="float64", decimals=decimals, meaning=meaning)


def _of(record: type) -> Iterator[Column]:
    """Of every setting of a record."""
    for name, each in settings_of(record).items():
        meaning = each.meaning.replace("`", "")
        yield Column(name=name, label=each.label, unit=each.unit, dtype=each.kind.dtype, meaning=meaning)


_POINT_ID = _words("point_id", "Configuration id", "the same for all folds and seeds of one configuration")

_IDENTITY = (
    _words("study", "Study", "name of the study's folder"),
    _words("trial_id", "Trial", "identity of the trial, also its folder's name"),
    _POINT_ID,
    _words("state", "State", "new, running, interrupted, infeasible, failed, stopped (late), finished, or unreadable"),
    _words("failure", "Reason", "why a trial failed or cannot be read"),
)

_SETTING = (
    _words("dataset", "Dataset", "nnU-Net's name"),
    _words(PLANS.name, PLANS.label, PLANS.meaning),
    _words("configuration", "Configuration", "of those plans"),
    _count("fold", "Fold", "of the dataset's cross-validation split"),
    _count("seed", "Seed", "of weights, batches and random draws"),
    _words("scheme", "Scheme", "name that the axes started from"),
    _words("trainer", "Trainer", "nnU-Net's class, of an imported run; missing for what this project trained"),
    _words(
        "method",
        "Method",
        "published scheme with this very stage table, `other` if none; `pdl` before it with PDL; or `imported`",
    ),
    *_of(Axes),
    _count(
        "pdl_iterations", "Iterations on them", "that draw these cases alone; missing where all are drawn throughout"
    ),
    _count("n_stages", "Stages", "in the resolved stage table"),
    _words("stage_table", "Stage table", "JSON list of patch_size, batch_size, first_iteration, iterations"),
    _count("iterations", "Iterations", "of the whole training, as specified"),
    *_of(TrainingSettings),
)

_OUTCOME = (
    _number("dice", "Dice", "mean foreground Dice of nnU-Net's validation of the whole fold", decimals=4),
    _number("nsd", "NSD", "mean normalised surface Dice of the same predictions, at the trial's tolerance", decimals=4),
    _number("hd95_mm", "HD95", "mean 95th percentile of the Hausdorff distance of the same", "mm", decimals=2),
    _words("remarks", "Remarks", "what a reader of the Dice must know of the data and the stage table"),
    _number("runtime_seconds", "Training time", "training loop with online validation, all attempts, waste too", "s"),
    _number(
        "runtime_at_reference_speed_seconds",
        "Training time, computed",
        "training iterations × the median ms of their shape (patch, batch, hardware) over all trials; no validation",
        "s",
    ),
    _number(
        "pace",
        "Pace",
        "time over that of the same iterations at the median over trials; missing where no other trained such",
        decimals=2,
    ),
    _number("energy_kwh", "Training energy", "of the same, the trial's share of the machine", "kWh"),
    _number(
        "gpu_energy_kwh", "Training energy, GPU", "of the same, the GPU's alone: no model of a constant wattage", "kWh"
    ),
    _number(
        "constant_energy_kwh",
        "Constant-wattage energy",
        "of the same, RAM and idle CPU, models that only time changes; ledgers of before know that of RAM alone",
        "kWh",
    ),
    _number("co2_kg", "Training CO₂", "of the same: energy × intensity of the grid × PUE, CO₂ equivalents", "kg"),
    _number("total_seconds", "Total time", "set-up, training and final validation", "s"),
    _number("total_energy_kwh", "Total energy", "of the same", "kWh"),
    _number("total_co2_kg", "Total CO₂", "of the same", "kg"),
    _number("waste_seconds", "Wasted time", "work done again after an interruption, contained in the total", "s"),
    _number("voxels", "Voxels", "trained on, each iteration counted once", decimals=0),
    _number("voxel_share", "Voxel share", "voxels relative to as many iterations of CPS", decimals=3),
    _number("busy_cores", "Busy cores", "of the node, mean over the trial, whoever kept them busy", decimals=1),
    _count("stopped_at_iteration", "Stopped at", "iteration where the Dice to stop at was reached before the end"),
    _words("weights_sha256", "Weights", "SHA-256 of the final weights"),
)

_CIRCUMSTANCE = (
    _count("attempts", "Attempts", "processes that worked on the trial"),
    _words("hardware", "Hardware", "CPU and GPU names"),
    _words("device", "Device", "cpu or cuda"),
    _number("cpus", "CPUs", "allotted to the trial"),
    _number("gpus", "GPUs", "allotted to the trial"),
    _count("concurrent_trials", "Trials at once", "on the machine, at most"),
    _count("trials_on_node", "Trials on the node", "that ran there at once, at most, this one included, of any study"),
    _words("energy_methods", "Energy by part", "how it was measured or estimated, absent, or unmeasured"),
    _words("unmeasured", "Not measured", "parts of the energy that are not known, and why"),
    _words("meter", "Meter", "what read the energy, with its version"),
    _words("country", "Country", "whose grid the CO₂ is for, ISO 3166 alpha-3"),
    _words("carbon_rate", "Carbon rate", "carbon intensity of the grid and PUE"),
    _words("nsd_tolerance_mm", "NSD tolerance", "in mm, at which NSD was taken"),
    _words("versions", "Versions", "of Python and libraries"),
)

TRIAL_COLUMNS: tuple[Column, ...] = (*_IDENTITY, *_SETTING, *_OUTCOME, *_CIRCUMSTANCE)
"""Columns of the table of trials, in order."""

_TRIAL_KEY = tuple(c for c in _IDENTITY if c.name in ("study", "trial_id"))

EPOCH_COLUMNS: tuple[Column, ...] = (
    *_TRIAL_KEY,
    _count("epoch", "Epoch", "index of the epoch that ended"),
    _count("iteration", "Iteration", "trained so far, each counted once"),
    _count("stage", "Stage", "index of the last iteration's stage"),
    _words("patch_size", "Patch size", "of that stage, in the axis order of the plan, joined by ×"),
    _count("batch_size", "Batch size", "of that stage"),
    _number("learning_rate", "Learning rate", "of this epoch"),
    _number("training_loss", "Training loss", "mean over the epoch's iterations"),
    _number("validation_loss", "Validation loss", "over the fixed validation batches at the full patch"),
    _number("pseudo_dice", "Pseudo Dice", "of the fixed validation batches at the full patch", decimals=4),
    _number("voxels", "Voxels", "trained on so far, each iteration counted once", decimals=0),
    _number("training_seconds", "Training time", "training loop with online validation so far, without waste", "s"),
    _number("energy_kwh", "Training energy", "of the same", "kWh"),
    _number("co2_kg", "Training CO₂", "of the same", "kg"),
)
"""Columns of the table of epochs: one row per trial and epoch, its learning curve."""

CASE_COLUMNS: tuple[Column, ...] = (
    *_TRIAL_KEY,
    _words("case", "Case", "identifier of the validation case"),
    _words("label", "Class", "label or region; `foreground` is the mean over those of the case"),
    _number("dice", "Dice", "missing where the class is neither in the case nor predicted", decimals=4),
    _number("nsd", "NSD", "likewise; 0 where it is in one of them alone", decimals=4),
    _number("hd95_mm", "HD95", "likewise; the image's diagonal where it is in one of them alone", "mm", decimals=2),
)
"""Columns of the table of cases: one row per trial, validation case and class."""

COST_COLUMNS: tuple[Column, ...] = (
    *_TRIAL_KEY,
    _count("attempt", "Attempt", "process that worked on the trial"),
    _words("phase", "Phase", "setup, training, online_validation or final_validation"),
    _count(
        "stage",
        "Stage",
        "of the curriculum, from 0; missing outside the training loop, and for random order in ledgers of before",
    ),
    _count("iteration_start", "First iteration", "covered"),
    _count("iteration_stop", "Iteration after the last", "covered; the same as the first outside training"),
    _count("iterations", "Iterations", "trained, those done again later included"),
    _number("started_at", "Started at", "seconds since 1970", "s"),
    _number("seconds", "Time", "wall time, waste included", "s"),
    _number("cpu_kwh", "CPU energy", "the trial's share", "kWh"),
    _number(
        "idle_cpu_kwh", "Idle CPU energy", "part of it, by share of the cores; missing in ledgers of before", "kWh"
    ),
    _number("gpu_kwh", "GPU energy", "the trial's share", "kWh"),
    _number("ram_kwh", "RAM energy", "the trial's share", "kWh"),
    _number("energy_kwh", "Energy", "sum of the three", "kWh"),
    _number("co2_kg", "CO₂", "energy × intensity of the grid × PUE", "kg"),
    _number("waste_seconds", "Wasted time", "part of the time whose work was done again later", "s"),
    _number("waste_energy_kwh", "Wasted energy", "likewise", "kWh"),
    _number("waste_co2_kg", "Wasted CO₂", "likewise", "kg"),
    _number("carbon_intensity", "Carbon intensity", "of the grid", "kg/kWh"),
    _number("pue", "PUE", "power usage effectiveness of the data centre"),
    _count("trials_on_node", "Trials on the node", "at once, at most, this one included"),
    _number("busy_cores", "Busy cores", "of the node, mean", decimals=1),
    _words("hostname", "Host", "machine that the attempt ran on"),
    _words("hardware", "Hardware", "CPU and GPU names"),
)
"""Columns of the table of cost segments: one row per trial, attempt, phase and stage."""

TABLES: Mapping[str, tuple[Column, ...]] = {
    "trials": TRIAL_COLUMNS,
    "epochs": EPOCH_COLUMNS,
    "cases": CASE_COLUMNS,
    "costs": COST_COLUMNS,
}
"""The four tidy tables; (study, trial_id) joins them."""

# What tells folds and seeds apart; a configuration is everything else.
_REPLICATION = ("fold", "seed")
SETTING_NAMES: tuple[str, ...] = tuple(c.name for c in _SETTING if c.name not in _REPLICATION)
"""Columns that are the same in all folds and seeds of a configuration."""

MEASURED_NAMES: tuple[str, ...] = tuple(c.name for c in _OUTCOME if c.dtype == "float64")
"""Columns that are averaged over the folds and seeds of a configuration."""

CIRCUMSTANCE_NAMES: tuple[str, ...] = tuple(c.name for c in _CIRCUMSTANCE if c.name != "attempts")
"""Columns that say where and how the costs arose."""

POINT_COLUMNS: tuple[Column, ...] = (
    _POINT_ID,
    *(c for c in _SETTING if c.name in SETTING_NAMES),
    *(c for c in _OUTCOME if c.name in MEASURED_NAMES),
    _number("dice_min", "Lowest Dice", "of the averaged trials", decimals=4),
    _number("dice_max", "Highest Dice", "of the averaged trials", decimals=4),
    _number("pace_min", "Lowest pace", "of the averaged trials", decimals=2),
    _number("pace_max", "Highest pace", "of the averaged trials", decimals=2),
    _number(
        *("dice_low", "Dice, from", "lower end of the 95 % interval: over cases, and over trainings if `training_sd`"),
        decimals=4,
    ),
    _number("dice_high", "Dice, to", "upper end of the same", decimals=4),
    _count("n_cases", "Cases", "different validation cases behind the interval"),
    _count("n_zero_cases", "Cases with Dice 0", "in every class and training"),
    _number("case_skewness", "Skewness", "of the cases' Dice, within folds", decimals=2),
    _number(
        *("training_sd", "SD between seeds", "of the Dice of a fold; missing with one training per fold"), decimals=4
    ),
    _count("n_trials", "Trials", "averaged"),
    _count("n_folds", "Folds", "different folds among them"),
    _count("n_seeds", "Seeds", "different seeds among them"),
    _words("folds", "Folds used", "the folds, separated by spaces"),
    _words("seeds", "Seeds used", "the seeds, separated by spaces"),
    *(
        _words(c.name, c.label, f"{c.meaning}; different ones separated by ` | `")
        for c in _CIRCUMSTANCE
        if c.name in CIRCUMSTANCE_NAMES
    ),
    _words("trial_ids", "Trials", "their identities, separated by spaces"),
    _words("studies", "Studies", "folders they come from; different ones separated by ` | `"),
    _words("summary", "Curriculum", "the configuration in a few words"),
)
"""Columns of the table of points: trials of one configuration, averaged over folds and seeds."""

FRONT_NUMBER = _count("number", "No.", "of a point on the front, by rising cost; as in the figure")
FRONT_COLUMNS: tuple[Column, ...] = (
    FRONT_NUMBER,
    _number("probability", "P(on front)", "bootstrap probability of being non-dominated", decimals=2),
    _number("contribution", "Own share", "of the hypervolume box, lost without this point alone", decimals=4),
)
"""Columns that a front adds to its points."""

BY_NAME = {column.name: column for column in (*POINT_COLUMNS, *TRIAL_COLUMNS, *FRONT_COLUMNS)}
"""Every column of points and trials by name."""


def dtypes(columns: Iterable[Column]) -> dict[str, Dtype]:
    """Name to pandas dtype."""
    return {column.name: column.dtype for column in columns}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective.

    Attributes:
        name: also the column's.
        maximise: more is better; otherwise less is.
        machine_bound: whether its value depends on the machine, so that different hardware cannot be compared.
        label: for axes; unit: of the column, empty for shares and counts.
    """

    name: str
    maximise: bool = False
    machine_bound: bool = True

    @property
    def label(self) -> str:
        """For axes and headings, without the unit."""
        return BY_NAME[self.name].label

    @property
    def unit(self) -> str:
        """Of the column; empty for shares and counts."""
        return BY_NAME[self.name].unit

    @property
    def is_carbon(self) -> bool:
        """Whether it is an amount of CO₂."""
        return self.unit == "kg"

    @property
    def is_energy(self) -> bool:
        """Whether it rests on a reading of energy."""
        return self.unit in ("kg", "kWh")


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(name="dice", maximise=True, machine_bound=False),
        Objective(name="nsd", maximise=True, machine_bound=False),
        Objective(name="hd95_mm", machine_bound=False),
        Objective(name="runtime_seconds"),
        Objective(name="energy_kwh"),
        Objective(name="co2_kg"),
        Objective(name="total_seconds"),
        Objective(name="total_energy_kwh"),
        Objective(name="total_co2_kg"),
        Objective(name="voxels", machine_bound=False),
        Objective(name="voxel_share", machine_bound=False),
    )
}
"""Every objective by name."""


def choose_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """The named objectives.

    Raises:
        InvalidInputError: fewer than two, an unknown one, or one named twice.
    """
    legal = f"two or more of {', '.join(OBJECTIVES)}"
    if len(names) < 2 or len(set(names)) < len(names) or any(name not in OBJECTIVES for name in names):
        raise InvalidInputError(field="objectives", received=",".join(names), legal=f"{legal}, each once")
    return tuple(OBJECTIVES[name] for name in names)
