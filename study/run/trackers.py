"""A study in MLflow, Weights & Biases or TensorBoard, from its ledger alone: one run a trial, named by the trial's id.

What a run has already is not sent again, so exporting a study again, or one that was resumed meanwhile, goes on with
the same runs. The libraries are extras and imported where they are used. Settings, curves and results are sent, and
nothing else of the machine: no variables of the environment, no code.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import MachineError
from study.store.audit import read_trial
from study.store.costs import bill
from study.store.trial_folder import ENDINGS, TrialFolder, TrialState

EXTRAS = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": "torch.utils.tensorboard"}
"""Tracker, also the name of the extra that installs it -> what is imported."""
_CURVES = (
    *("training_loss", "validation_loss", "pseudo_dice", "learning_rate", "batch_size", "training_seconds", "voxels"),
)
_SENT = "pgps_sent.json"


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A trial as trackers take it.

    Attributes:
        params: settings by name; curves: epoch -> values; results: final Dice and costs, None of them unmeasured.
        state: of the trial.
    """

    trial_id: str
    params: Mapping[str, str | int | float | bool]
    curves: Mapping[int, Mapping[str, float]]
    results: Mapping[str, float]
    state: TrialState

    @property
    def ended(self) -> bool:
        """Whether nothing will follow."""
        return self.state in (TrialState.FINISHED, *ENDINGS.values())


def tracked(folder: TrialFolder) -> Tracked:
    """What the ledger has of a trial now.

    Raises:
        LedgerError: the trial is unreadable.
    """
    records = read_trial(folder)
    spec, training = records.spec, bill(records.attempts, records.intervals).training
    named = ("dataset", "plans", "configuration", "fold", "seed", "scheme", "imported")
    params = {name: getattr(spec, name) for name in named} | {**vars(spec.axes), **vars(spec.training)}
    results = dict[str, float | None]()
    if records.result is not None:
        results = {"dice": records.result.dice, "voxel_share": records.result.voxel_share}
        results |= {f"dice_class_{label}": dice for label, dice in records.result.dice_per_class.items()}
        results |= {name: one.mean for name, one in records.result.metrics.items()}
        results |= {"runtime_seconds": training.seconds, "energy_kwh": training.energy_kwh, "co2_kg": training.co2_kg}
    return Tracked(
        trial_id=folder.trial_id,
        params={name: value for name, value in params.items() if value is not None},
        curves={report.epoch: _known({name: getattr(report, name) for name in _CURVES}) for report in records.epochs},
        results=_known(results),
        state=records.state,
    )


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}


def sender(tracker: str, where: str, study: str) -> Callable[[Tracked], bool]:
    """What sends a trial to a tracker, and says whether there was anything to send.

    Args:
        tracker: one of `EXTRAS`.
        where: MLflow's URI, or a folder.
        study: name of the study, MLflow's experiment and W&B's project.

    Raises:
        MachineError: its library is not installed.
    """
    try:
        importlib.import_module(EXTRAS[tracker])
    except ImportError:
        raise MachineError(f"{tracker} is not installed; pip install 'pgps-study[{tracker}]'") from None
    if tracker == "mlflow":
        return _to_mlflow(where, study)
    send, root = _to_wandb if tracker == "wandb" else _to_tensorboard, Path(where).resolve()
    return lambda trial: _sent_to_folder(root, trial, lambda new: send(root, study, new))


def _sent_to_folder(root: Path, trial: Tracked, send: Callable[[Tracked], None]) -> bool:
    """Send what is new to a tracker whose files are only added to; what was sent stands beside them."""
    note = root / trial.trial_id / _SENT
    before: dict[str, Any] = files.read_json(note) if note.is_file() else {"epochs": 0, "ended": False}
    new = {epoch: values for epoch, values in trial.curves.items() if epoch >= before["epochs"]}
    if not new and before["ended"] is trial.ended:
        return False
    send(Tracked(**{**vars(trial), "curves": new}))
    files.write_json(note, {"epochs": max(trial.curves, default=-1) + 1, "ended": trial.ended})
    return True


def _to_tensorboard(root: Path, study: str, trial: Tracked) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(root / trial.trial_id)) as writer:
        for epoch, values in trial.curves.items():
            for name, value in values.items():
                writer.add_scalar(f"curve/{name}", value, epoch)
        if trial.ended:
            for name, value in trial.results.items():
                writer.add_scalar(f"result/{name}", value, 0)
            results = {f"hparam/{name}": value for name, value in trial.results.items()}
            writer.add_hparams(dict(trial.params), results, run_name=".")


def _to_wandb(root: Path, study: str, trial: Tracked) -> None:
    """As an offline run, which `wandb sync` uploads; several of one id are one run there."""
    import wandb

    root.mkdir(parents=True, exist_ok=True)
    quiet = wandb.Settings(
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
    )
    run = wandb.init(
        project=study,
        id=trial.trial_id,
        name=trial.trial_id,
        dir=str(root),
        mode="offline",
        resume="allow",
        config=dict(trial.params),
        settings=quiet,
    )
    for epoch, values in trial.curves.items():
        run.log(dict(values), step=epoch)
    run.summary.update({**trial.results, "state": trial.state.value})
    run.finish(exit_code=0 if trial.state is not TrialState.FAILED else 1)


def _shown(uri: str) -> str:
    """An address without the password that may be in it."""
    return re.sub(r"//[^/@]*@", "//…@", uri)


def _first_sentence(error: Exception) -> str:
    return _shown(" ".join(str(error).split()).partition(". ")[0])


def _to_mlflow(uri: str, study: str) -> Callable[[Tracked], bool]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    try:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(study)
    except Exception as error:  # of whichever library its store is made with
        raise MachineError(
            f"MLflow cannot use {_shown(uri)}: {type(error).__name__}: {_first_sentence(error)}"
        ) from None
    experiment = client.create_experiment(study) if found is None else found.experiment_id
    ends = {TrialState.FINISHED: "FINISHED", **dict.fromkeys(ENDINGS.values(), "FAILED")}

    def send(trial: Tracked) -> bool:
        name = f"tags.pgps_trial = '{trial.trial_id}'"
        run = next(iter(client.search_runs([experiment], name)), None)
        if run is None:
            tags = {"pgps_trial": trial.trial_id, "mlflow.user": "pgps"}
            run = client.create_run(experiment, run_name=trial.trial_id, tags=tags)
            params = [Param(key, str(value)) for key, value in trial.params.items()]
            client.log_batch(run.info.run_id, params=params)
        history = client.get_metric_history(run.info.run_id, "training_loss")
        done = max((metric.step for metric in history), default=-1)
        # The time of an epoch decides nothing; what was sent is told by its step.
        curves = [
            Metric(key, value, 0, epoch)
            for epoch, values in trial.curves.items()
            if epoch > done
            for key, value in values.items()
        ]
        ended = run.info.status in ("FINISHED", "FAILED")
        results = [Metric(key, value, 0, 0) for key, value in trial.results.items()] if not ended else []
        for start in range(0, len(curves + results), 1000):
            client.log_batch(run.info.run_id, metrics=(curves + results)[start : start + 1000])
        if trial.ended and not ended:
            client.set_terminated(run.info.run_id, ends[trial.state])
        return bool(curves) or trial.ended is not ended

    return send
