"""What a study's trials are going to take, by those that have finished: what is left, and how far off that may be."""

from __future__ import annotations

from collections.abc import Sequence

from study.common.errors import StudyError
from study.common.terminal import time_left
from study.store.basis import Basis, basis_for, trained_in
from study.store.calibration import network_of
from study.store.ledger import Ledger
from study.store.outlook import study_outlook
from study.store.status import TrialStatus
from study.store.trial_folder import TrialState

_AHEAD = (TrialState.NEW, TrialState.RUNNING, TrialState.INTERRUPTED)


class Forecast:
    """Of a study; what has finished is read again only when more has."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, ...], tuple[int, Basis]] = {}
        self._seconds: dict[tuple[str, int], float] = {}

    def words(self, rows: Sequence[TrialStatus]) -> list[str]:
        """What was spent and, where that can be told, what is to come, a sentence each.

        Args:
            rows: of the study; only of trials that are there, not of points that a search has yet to propose.
        """
        spent = sum(row.runtime_seconds for row in rows)
        carbon = [row.co2_kg for row in rows if row.co2_kg is not None]
        said = [f"Trained so far: {time_left(spent)}" + (f", {sum(carbon):.3g} kg CO₂." if carbon else ".")]
        if (previewed := study_outlook(self._ledger, rows)) is not None:
            return [*said, f"Against its preview: {previewed.words()}."]
        ahead = [row for row in rows if row.state in _AHEAD and row.dataset]
        if not ahead:
            return said
        finished = sum(row.state is TrialState.FINISHED for row in rows)
        try:
            left = [max(0.0, self._expected(row, finished) - _kept(row)) for row in ahead]
            basis = [known.words() for _, known in self._known.values()]
        except StudyError:
            return [*said, "How long the others will take is known once one like them has finished."]
        at_a_time = max(1, sum(row.state is TrialState.RUNNING for row in rows))
        together = max(sum(left) / at_a_time, max(left))
        said.append(
            f"About {time_left(together)} left for what has begun or waits ({len(ahead)}), {at_a_time} at a time: "
            f"training loops alone, {'; '.join(basis)}."
        )
        return said

    def _expected(self, row: TrialStatus, finished: int) -> float:
        """Seconds that a trial's training takes in all."""
        if (row.trial_id, finished) not in self._seconds:
            spec = self._ledger.trial(row.trial_id).spec()
            network = network_of(spec)
            if self._known.get(network, (-1, None))[0] != finished:
                known = basis_for(spec, trained_in([self._ledger], network), (), hardware=None, remedy="")
                self._known[network] = finished, known
            self._seconds[row.trial_id, finished] = self._known[network][1].preview(spec).amounts[0]
        return self._seconds[row.trial_id, finished]


def _kept(row: TrialStatus) -> float:
    return row.runtime_seconds - row.waste_seconds
