"""A study in MLflow, Weights & Biases or TensorBoard, from its ledger alone: one run a trial, named by the trial's id.

What a run has already is not sent again, so exporting a study again, or one that was resumed meanwhile, goes on with
the same runs. The libraries are extras and imported where they are used. Settings, curves and results are sent, and
nothing else of the machine: no variables of the environment, no code.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from study.common import files
from study.common.errors import LedgerError, MachineError
from study.common.trackers import shown
from study.store.audit import read_trial
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.trial_folder import ENDINGS, TrialFolder, TrialState

# Four minutes are MLflow's own patience with a server that is away.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
PASS_SECONDS = {"mlflow": 10.0, "wandb": 600.0, "tensorboard": 10.0}
"""Tracker -> how often it is told of a study that runs; every time is a file more for W&B."""
_CURVES = (
    *("training_loss", "validation_loss", "pseudo_dice", "learning_rate", "batch_size", "training_seconds", "voxels"),
)
_SENT, _STAGE, _EVENTS = "pgps_sent.json", "stage", "events.out.tfevents.pgps"
_MOST_LETTERS = 160
_NOTHING_SENT: dict[str, Any] = {"epochs": 0, "ended": False, "bytes": 0, "run": ""}


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


class Teller:
    """Tells a tracker what has changed in a study since it did so last.

    Args:
        tracker: a key of `common.trackers.TRACKERS`; target: MLflow's URI, or a folder.
        study: name of the study, MLflow's experiment and W&B's project.
        complain: told in one line which trial is left out.
    """

    def __init__(self, tracker: str, target: str, study: str, complain: Callable[[str], None] = lambda _: None) -> None:
        self._tracker, self._target, self._complain = tracker, target, complain
        self._send = _to_mlflow(target, study) if tracker == "mlflow" else _to_folder(tracker, Path(target), study)
        self._told: dict[str, object] = {}
        self._failed = ""

    def tell(self, ledger: Ledger) -> int:
        """Send it; how many trials had something new.

        Raises:
            MachineError: the tracker does not take it; what was not sent is sent the next time.
        """
        # What it takes not at all keeps the others from being told once.
        return sum(map(self._tell, sorted(ledger.trials(), key=lambda trial: trial.trial_id == self._failed)))

    def _tell(self, trial: TrialFolder) -> bool:
        signature, sent = trial.signature(), False
        if self._told.get(trial.trial_id) == signature:
            return False
        try:
            sent = self._send(tracked(trial))
        except LedgerError as error:
            self._complain(f"{trial.trial_id} is left out: {error}")
        except Exception as error:  # of whichever library it is made with
            self._failed = trial.trial_id
            words = shown(" ".join(str(error).split())).partition(". ")[0]
            where = f"{self._tracker} cannot use {shown(self._target)}"
            raise MachineError(f"{where}: {type(error).__name__}: {words[:_MOST_LETTERS]}") from error
        self._told[trial.trial_id] = signature
        return sent


def _to_folder(tracker: str, root: Path, study: str) -> Callable[[Tracked], bool]:
    """What sends to a tracker whose files are only added to. What was sent stands beside them, so that whenever the
    sender is killed everything is there once."""
    root = root.resolve()

    def send(trial: Tracked) -> bool:
        folder = root / trial.trial_id
        note, stage = folder / _SENT, folder / _STAGE
        before = _NOTHING_SENT | (files.read_json(note) if note.is_file() else {})
        _move_run(root, stage, before["run"])
        new = {epoch: values for epoch, values in trial.curves.items() if epoch >= before["epochs"]}
        if not new and before["ended"] is trial.ended:
            return False
        stage.mkdir(parents=True)
        part = Tracked(**{**vars(trial), "curves": new})
        now: dict[str, Any] = {"epochs": max(trial.curves, default=-1) + 1, "ended": trial.ended}
        if tracker == "wandb":
            _write_run(stage, study, part)
            now["run"] = next(path.name for path in stage.glob("wandb/offline-run-*"))
        else:
            _write_events(stage, part)
            now["bytes"] = _append(folder / _EVENTS, before["bytes"], sorted(stage.iterdir()))
        files.write_json(note, now)
        _move_run(root, stage, now.get("run", ""))
        return True

    return send


def _append(path: Path, size: int, parts: list[Path]) -> int:
    """Put files behind the first bytes of another one, in place of what a kill left there; its new size."""
    with path.open("ab") as handle:
        handle.truncate(min(size, handle.tell()))
        for part in parts:
            handle.write(part.read_bytes())
        handle.flush()
        os.fsync(handle.fileno())
        return handle.tell()


def _move_run(root: Path, stage: Path, name: str) -> None:
    """W&B's run of that name to where it belongs if it is not there yet; nothing else is left of what was staged."""
    if name and (stage / "wandb" / name).is_dir():
        (root / "wandb").mkdir(exist_ok=True)
        (stage / "wandb" / name).rename(root / "wandb" / name)
    shutil.rmtree(stage, ignore_errors=True)


def _write_events(stage: Path, trial: Tracked) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(stage)) as writer:
        for epoch, values in trial.curves.items():
            for name, value in values.items():
                writer.add_scalar(f"curve/{name}", value, epoch)
        if trial.ended:
            for name, value in trial.results.items():
                writer.add_scalar(f"result/{name}", value, 0)
            results = {f"hparam/{name}": value for name, value in trial.results.items()}
            writer.add_hparams(dict(trial.params), results, run_name=".")


def _write_run(stage: Path, study: str, trial: Tracked) -> None:
    """As an offline run, which `wandb sync` uploads; several of one id are one run there."""
    import wandb

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
        dir=str(stage),
        mode="offline",
        resume="allow",
        config=dict(trial.params),
        settings=quiet,
    )
    for epoch, values in trial.curves.items():
        run.log(dict(values), step=epoch)
    run.summary.update({**trial.results, "state": trial.state.value})
    run.finish(exit_code=0 if trial.state is not TrialState.FAILED else 1)


def _to_mlflow(uri: str, study: str) -> Callable[[Tracked], bool]:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)

    ends = {TrialState.FINISHED: "FINISHED", **dict.fromkeys(ENDINGS.values(), "FAILED")}

    @cache
    def store() -> tuple[MlflowClient, str]:
        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(study)
        return client, client.create_experiment(study) if found is None else found.experiment_id

    def send(trial: Tracked) -> bool:
        client, experiment = store()
        run = next(iter(client.search_runs([experiment], f"tags.pgps_trial = '{trial.trial_id}'")), None)
        if run is None:
            tags = {"pgps_trial": trial.trial_id, "mlflow.user": "pgps"}
            run = client.create_run(experiment, run_name=trial.trial_id, tags=tags)
        if not run.data.params:
            client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in trial.params.items()])
        history = client.get_metric_history(run.info.run_id, "training_loss")
        done, status = max((metric.step for metric in history), default=-1), ends.get(trial.state, "RUNNING")
        curves = [
            # The time of an epoch decides nothing; what was sent is told by its step.
            [Metric(key, value, 0, epoch) for key, value in values.items()]
            for epoch, values in trial.curves.items()
            if epoch > done
        ]
        if run.info.status != status:
            curves.append([Metric(key, value, 0, 0) for key, value in trial.results.items()])
        # An epoch is there as a whole or not: a batch is a transaction, of 1,000 metrics at most.
        for start in range(0, len(curves), 50):
            batch = [metric for values in curves[start : start + 50] for metric in values]
            client.log_batch(run.info.run_id, metrics=batch)
        if status == "RUNNING" != run.info.status:
            client.update_run(run.info.run_id, status)
        elif run.info.status != status:
            client.set_terminated(run.info.run_id, status)
        return bool(curves)

    return send
