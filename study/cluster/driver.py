"""The driver: holds the study's lock, runs its points on Tune, shows the ledger while it waits, and stops cleanly.

Tune runs in a thread, so that this one can take signals. On the first Ctrl-C or SIGTERM a stop file appears in the
study folder: every training writes a checkpoint and ends, on whatever node it is, and only then Ray goes down. A second
signal goes down at once, a third one as a killed driver does; the trainings then notice that nobody holds their pipe,
and write their checkpoints too. Ray's own agents leave about a minute after a killed driver.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from ray import tune

from study.cluster.local import Shares, allot
from study.cluster.nodes import check_nodes, connected, nodes
from study.cluster.tuning import (
    DEFAULT_PATIENCE,
    Assignment,
    Attempt,
    EndOnRequest,
    Patience,
    PointSearcher,
    TuneThread,
    run_point,
    train_in_process,
)
from study.common.errors import DiskFullError, TrialInterrupted
from study.common.machine import MachineShare
from study.common.process import Requests, leave
from study.nnunet.datasets import DataPaths
from study.run.following import following
from study.run.provenance import Provenance, Workplace, check_provenance
from study.run.trial_process import STOP_GRACE_SECONDS, TrialJob
from study.search.samplers import TrialSource, make_sampler
from study.search.space import SearchSpace
from study.search.trials import Lookup, prepared_lookup
from study.store.audit import audit
from study.store.ledger import Ledger
from study.store.outlook import StudyPreview, record_preview
from study.store.status import found, study_status
from study.store.stopping import LATE
from study.store.trial_folder import TrialState

REFRESH_SECONDS = 1.0
# A worker or node that is lost is no fault of the trial's, but one that takes every node with it must end somewhere.
MOST_LOSSES = 20
STOPPED = "the study was stopped; the same command resumes it"
AT_ONCE = "the study was stopped at once; the same command resumes it"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a study.

    Attributes:
        space: what is searched; ledger: where it is kept; data: prepared data.
        address: of a Ray cluster, None for one of our own on this machine.
        previous_stage: for cascades.
        patience: with faults.
        preview: what the study was said to cost, recorded before its first point.
        on_begin: told how many trials are to be brought to their end, before the first one starts.
        on_refresh: called about once a second while trials run.
        say: told in one line what a user should know.
        attempt: makes one attempt at a trial; another one than the default trains nothing, to measure the rest.
        folds: what is trained may be of, beside the space's own.
        work: makes what is to be done, given the ledger, held, a lookup of its data, and `say`; None: what the space's
            searcher proposes.
    """

    space: SearchSpace
    ledger: Ledger
    data: DataPaths
    address: str | None = None
    previous_stage: Path | None = None
    patience: Patience = DEFAULT_PATIENCE
    preview: StudyPreview | None = None
    on_begin: Callable[[int], None] = lambda _: None
    on_refresh: Callable[[], None] = lambda: None
    say: Callable[[str], None] = lambda _: None
    attempt: Attempt = train_in_process
    folds: tuple[int, ...] = ()
    work: Callable[[Ledger, Lookup, Callable[[str], None]], TrialSource] | None = None

    @property
    def trained(self) -> SearchSpace:
        """The space with all folds whose data the run rests on."""
        return replace(self.space, folds=tuple(dict.fromkeys([*self.space.folds, *self.folds])))

    def with_look(self, look: Callable[[], None]) -> Run:
        """The same with something more to be called about once a second."""

        def refresh() -> None:
            self.on_refresh()
            look()

        return replace(self, on_refresh=refresh)


def run_study(run: Run) -> list[str]:
    """Run all points that have not finished; returns a line for each that was lost for good.

    Raises:
        TrialInterrupted: stopped by a signal; the same call resumes.
        DiskFullError: stopped because there is no room for records; the same call resumes.
        InvalidInputError: fewer points are asked for than have finished.
        LedgerError: another process runs the study, it rests on something else, or its files are damaged.
        MachineError: no node can hold a trial, a node cannot do the work, or no cluster answers.
    """
    with _Signals() as signals, run.ledger.locked(run.say):
        audit(run.ledger)
        here = Provenance.here(run.trained, run.data, run.previous_stage)
        check_provenance(run.ledger, run.space, run.data, here)
        record_preview(run.ledger, run.preview)
        sampler = _work(run)
        rows = study_status(run.ledger)
        if rows:
            run.say(found(rows, new=sampler.untrained))
        with following(run.space.trackers, run.ledger, run.say) as look:
            return _on_ray(run.with_look(look), sampler, here, signals) if sampler.remaining else []


def _on_ray(run: Run, sampler: TrialSource, here: Provenance, signals: _Signals) -> list[str]:
    search = PointSearcher(sampler)
    run.say("starting Ray" if run.address is None else f"joining Ray at {run.address}")
    with _stop_file(run.ledger.root) as stop_file, connected(run.space, run.address):
        # Ray has put its own handlers in their place.
        signals.install()
        if run.address is not None:
            root, url = run.ledger.root.resolve(), run.ledger.url
            check_nodes(root, run.trained, run.data, here, previous_stage=run.previous_stage, url=url)
        shares = allot(run.space.resources, nodes())
        signals.check()
        run.on_begin(sampler.unfinished)
        return _fit(run, search, shares, stop_file, signals)


def _work(run: Run) -> TrialSource:
    lookup = prepared_lookup(run.data)
    if run.work is not None:
        return run.work(run.ledger, lookup, run.say)
    return make_sampler(run.space, run.ledger, lookup, retry_infeasible=run.patience.retry_infeasible)


@contextmanager
def _stop_file(root: Path) -> Iterator[Path]:
    for left_over in root.glob(".stop-*"):
        left_over.unlink(missing_ok=True)
    path = root.resolve() / f".stop-{uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _fit(run: Run, search: PointSearcher, shares: Shares, stop_file: Path, signals: _Signals) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="pgps-tune-", ignore_cleanup_errors=True) as folder:
        thread = TuneThread(lambda end: _tuner(run, search, shares, stop_file, Path(folder), end))
        try:
            thread.start()
            while thread.is_alive() and not signals.received and not thread.full_disk:
                thread.join(REFRESH_SECONDS)
                run.on_refresh()
            if signals.received or thread.full_disk:
                _stop_trainings(run, stop_file)
                raise DiskFullError(thread.full_disk) if thread.full_disk else TrialInterrupted(STOPPED)
        finally:
            thread.end()
        return thread.failures()


def _tuner(
    run: Run, search: PointSearcher, shares: Shares, stop_file: Path, folder: Path, end: EndOnRequest
) -> tune.Tuner:
    trainable = tune.with_resources(
        tune.with_parameters(run_point, assignment=_assignment(run, shares, stop_file)),
        {"cpu": shares.cpus, "gpu": shares.gpus},
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=search.remaining, max_concurrent_trials=shares.in_total, reuse_actors=True
        ),
        # Tune's own folder is a scheduler's memory, never read back: it goes with the run.
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            callbacks=[end],
            failure_config=tune.FailureConfig(max_failures=MOST_LOSSES),
        ),
    )


def _assignment(run: Run, shares: Shares, stop_file: Path) -> Assignment:
    # To be read it must be set.
    umask = os.umask(0o077)
    os.umask(umask)
    resources = MachineShare(
        device=shares.device,
        cpus=shares.cpus,
        gpus=shares.gpus or None,
        data_workers=run.space.resources.data_workers,
        concurrent_trials=shares.per_node,
        compile_cache=run.space.resources.compile_cache,
    )
    workplace = Workplace(
        data=run.data,
        resources=resources,
        energy=run.space.energy,
        previous_stage=run.previous_stage,
        metrics=run.space.metrics,
    )
    root = run.ledger.root.resolve()
    # What is confirmed is trained to its end.
    is_late = run.space.stopping == LATE and run.work is None
    curves = (run.ledger.url or str(root)) if is_late else None
    template = TrialJob(study=root, trial_id="", workplace=workplace, stop_file=stop_file, curves=curves)
    return Assignment(
        space=replace(run.space, trackers={}),
        template=template,
        patience=run.patience,
        attempt=run.attempt,
        url=run.ledger.url,
        umask=umask,
    )


class _Signals:
    """Takes SIGINT and SIGTERM from the first line of a run on: one is noted, a second interrupts at once.

    A third one would interrupt what cleans up, so it ends the process, which loses no more than a kill does.
    """

    def __init__(self) -> None:
        self.received = self._at_once = False
        self._requests = Requests()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        self._before = self.install()
        return self

    def __exit__(self, *_: object) -> None:
        # Who has been stopped ends, and a signal more must not interrupt that.
        if not self.received:
            for number, action in self._before.items():
                signal.signal(number, action)

    def install(self) -> dict[signal.Signals, Any]:
        return {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def check(self) -> None:
        if self.received:
            raise TrialInterrupted(STOPPED)

    def _handle(self, *_: object) -> None:
        if not self._requests.is_new():
            return
        if self._at_once:
            leave(AT_ONCE)
        if self.received:
            self._at_once = True
            raise TrialInterrupted(AT_ONCE)
        self.received = True


def _stop_trainings(run: Run, stop_file: Path) -> None:
    with suppress(OSError):  # a full disk; the trainings then notice that their worker is gone
        stop_file.touch()
    run.ledger.post_stop(stop_file)
    deadline = time.monotonic() + STOP_GRACE_SECONDS
    while time.monotonic() < deadline:
        if not any(folder.state() is TrialState.RUNNING for folder in run.ledger.trials()):
            return
        run.on_refresh()
        time.sleep(REFRESH_SECONDS)
