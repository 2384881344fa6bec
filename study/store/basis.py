"""What previews of a network rest on: finished trials, a calibration, or both; and how far they may be off.

From `LEAST_FOR_ERRORS` finished trials on they count, and a calibration gives the sizes that none of them trained; with
fewer it is the other way round. How far to trust it is measured, not assumed: each finished trial is predicted from the
others. Hardware and plans must be the same: no number is carried from one kind of card to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from statistics import median, quantiles

from study.common.errors import InvalidInputError
from study.store.audit import read_trial
from study.store.calibration import Calibration, network_of
from study.store.ledger import Ledger
from study.store.preview import Preview, Rates
from study.store.specification import TrialSpec
from study.store.taken import Trained
from study.store.trial_folder import TrialState

# From so many trials on they count before a calibration, and their errors say how far a prediction may be off.
LEAST_FOR_ERRORS = 4
# More trials say no more; each of them is read, and predicted from all the others.
MOST_TRIALS = 100


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What previews of one network on one kind of hardware rest on: at least one finished trial, or a calibration.

    Attributes:
        trained: finished trials; calibrated: a calibration, as one.
        spread: of that, how much quicker and slower its stretches were than their median, as factors.
    """

    trained: tuple[Trained, ...] = ()
    calibrated: Trained | None = None
    spread: tuple[float, float] = (1.0, 1.0)

    @property
    def by_trials(self) -> bool:
        """Whether finished trials count, and the calibration fills in."""
        return self.calibrated is None or len(self.trained) >= LEAST_FOR_ERRORS

    @property
    def hardware(self) -> str:
        return (self.calibrated or self.trained[0]).hardware

    @cached_property
    def rates(self) -> Rates:
        return self._rates(self.trained)

    def preview(self, spec: TrialSpec) -> Preview:
        """Of a trial of this network."""
        return self.rates.preview(spec)

    def _rates(self, trained: Sequence[Trained]) -> Rates:
        calibrated = [] if self.calibrated is None else [self.calibrated]
        return Rates(trained, calibrated) if self.by_trials else Rates(calibrated, trained)

    @cached_property
    def factors(self) -> list[Factors]:
        """What each finished trial took over what the others predict of it."""
        found = []
        for place, each in enumerate(self.trained):
            others = [*self.trained[:place], *self.trained[place + 1 :]]
            if each.spec is not None and each.whole is not None and (others or self.calibrated):
                rates = self._rates(others)
                seconds, energy, _ = rates.preview(each.spec).amounts
                taken = each.whole.energy_kwh, each.whole.cpu_seconds
                predicted = energy, rates.stretch and seconds / rates.stretch
                of_energy, of_cpu = (a / b if a and b else None for a, b in zip(taken, predicted, strict=True))
                found.append((each.whole.seconds / seconds, of_energy, of_cpu))
        return found

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Factors between which eight in ten predictions are off, None while too little is known to say."""
        found = [seconds for seconds, *_ in self.factors]
        if len(found) >= LEAST_FOR_ERRORS:
            tenths = quantiles(found, n=10, method="inclusive")
            return min(1.0, tenths[0]), max(1.0, tenths[-1])
        return None if self.by_trials else self.spread

    def words(self) -> str:
        """What previews rest on and how far they may be off, as a sentence."""
        number = f"{len(self.trained)} finished trial{'' if len(self.trained) == 1 else 's'}"
        basis = number if self.by_trials else "a calibration (one training alone on the machine)"
        if self.by_trials and self.calibrated is not None:
            basis += " and, for sizes they lack, a calibration"
        told = f"by {basis} on {self.hardware}"
        if len(self.factors) < LEAST_FOR_ERRORS:
            return f"{told}; too few finished trials to say how far it is off (from {LEAST_FOR_ERRORS} on)"
        columns = zip(("seconds", "kWh", "its own CPU seconds"), zip(*self.factors, strict=True), strict=True)
        off = [f"{_off(column)} in {name}" for name, column in columns if None not in column]
        return f"{told}; each of them predicted from the others was off by {', '.join(off)}"


Factors = tuple[float, float | None, float | None]
"""Of seconds of the training loop, kWh, CPU seconds; None is unmeasured, or does not count."""


def _off(factors: Iterable[float | None]) -> str:
    shares = sorted(abs(1 / factor - 1) for factor in factors if factor)
    return f"{median(shares):.1%} (median) and {quantiles(shares, n=10, method='inclusive')[-1]:.1%} (p90)"


def trained_in(ledgers: Iterable[Ledger], network: Sequence[str]) -> list[Trained]:
    """Finished trials of a network, the first `MOST_TRIALS`.

    Raises:
        LedgerError: a trial is unreadable.
    """
    folders = (folder for ledger in ledgers for folder in ledger.trials() if folder.state() is TrialState.FINISHED)
    found = (Trained.of(read_trial(folder)) for folder in folders)
    return list(islice((each for each in found if each and each.network == tuple(network)), MOST_TRIALS))


def basis_for(
    spec: TrialSpec,
    trained: Sequence[Trained],
    calibrations: Sequence[Calibration],
    *,
    hardware: str | None,
    remedy: str,
    kg_per_kwh: float | None = None,
) -> Basis:
    """What previews of a trial rest on.

    Args:
        spec: of the trial.
        trained: finished trials, of any network and hardware.
        calibrations: likewise.
        hardware: that it would be trained on; None where that is not known here, and one kind alone is taken.
        remedy: what to run where nothing is left.
        kg_per_kwh: of its grid and data centre, for what was calibrated.

    Raises:
        InvalidInputError: nothing is left, in one line why.
    """
    network = network_of(spec)
    ready = [(Trained.calibrated(each, kg_per_kwh=kg_per_kwh), each) for each in calibrations]
    found = [each for each in (*trained, *(timed for timed, _ in ready)) if each.network == network]
    same = [each for each in found if each.plans_sha256 == spec.plans_sha256]
    kinds = sorted({each.hardware for each in same})
    fitting = [each for each in same if hardware in (None, each.hardware)]
    if not same:
        received = "those of other plans of that name" if found else "none"
        legal = f"finished trials or a calibration of {' '.join(network)}"
        raise InvalidInputError(field="costs", received=received, legal=legal, remedy=remedy)
    if not fitting or (hardware is None and len(kinds) > 1):
        legal = f"those of {hardware or 'one kind of hardware'}"
        raise InvalidInputError(field="costs", received=f"those of {'; '.join(kinds)}", legal=legal, remedy=remedy)
    timed = [(timed, each) for timed, each in ready if timed in fitting]
    newest, measured = max(timed, key=lambda pair: pair[1].taken_at, default=(None, None))
    return Basis(
        trained=tuple(each for each in fitting if each.spec is not None),
        calibrated=newest,
        spread=(1.0, 1.0) if measured is None else _spread(measured),
    )


def _spread(found: Calibration) -> tuple[float, float]:
    """Of the stretches of a shape, over its shapes at the median."""
    low, high = zip(*((s.low_seconds / s.seconds, s.high_seconds / s.seconds) for s in found.shapes), strict=True)
    return median(low), median(high)
