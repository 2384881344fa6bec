"""A training that may be stopped late: asked at its rungs, every answer recorded before anything follows from it.

The trainer sees a stop that is requested, no more. A trial that is killed and resumed finds what was said of it in its
events, and a rung that was asked is not asked again: what has finished meanwhile changes no answer.
"""

from __future__ import annotations

from dataclasses import asdict

from study.buckets.view import reading
from study.common.errors import StudyError
from study.run.progress import StopRequest
from study.store.ledger import Ledger
from study.store.records import EpochReport
from study.store.stopping import (
    RUNG,
    STAYED,
    STOPPED,
    StopDecision,
    curve_of,
    finished_curves,
    is_kept,
    judged,
    rung_epochs,
    said_before,
    searched_training,
)
from study.store.trial_folder import TrialFolder


class LateStop(StopRequest):
    """A request to stop that a training's own curve may make.

    Args:
        folder: of the trial.
        study: folder or URL of the study whose finished trainings it is compared with.
    """

    def __init__(self, folder: TrialFolder, study: str) -> None:
        super().__init__()
        self._folder, self._study = folder, study
        training = folder.spec().training
        self._rungs = rung_epochs(training.epochs, training.validation_every_epochs)

    def epoch_done(self, report: EpochReport) -> None:
        """At a rung, ask; and stop if that is the answer."""
        rung = self._rungs.get(report.epoch)
        if rung is None or said_before(self._folder.events(), rung):
            return
        try:
            verdict = self._verdict(rung, report.iteration)
        except (StudyError, OSError) as error:
            self._folder.note(f"not asked at {rung:.0%} whether to stop: {' '.join(str(error).split())}")
            return
        if verdict is not None:
            self._record(verdict)

    def _verdict(self, rung: float, iteration: int) -> StopDecision | None:
        spec = self._folder.spec()
        with reading(self._study) as (root, _):
            ledger = Ledger(root)
            curve = curve_of(spec, self._folder.epochs(), None, searched_training(ledger.header()))
            others = finished_curves(ledger, group=curve.group)
        return judged(curve, others, rung=rung, share=iteration / spec.curriculum.total_iterations)

    def _record(self, verdict: StopDecision) -> None:
        stops = verdict.beaten_by is not None
        event = RUNG if not stops else STAYED if is_kept(self._folder.trial_id) else STOPPED
        reason = {"reason": verdict.reason} if stops else {}
        self._folder.append_event(event, **asdict(verdict), **reason)
        if event == STOPPED:
            self.requested = self.recorded = True
