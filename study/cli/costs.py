"""Where verbs find what trials will cost: in named studies and files, the study itself, and beside prepared data."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from study.buckets.storage import place
from study.common.errors import StudyError
from study.common.terminal import complain, python, time_left
from study.store.calibration import Calibration, found_beside, hardware_words, network_of, read_calibration
from study.store.ledger import Ledger
from study.store.outlook import KnownNetwork, StudyPreview
from study.store.preview import Amounts, Basis, Preview, amounts_words, basis_for, sum_of_amounts, trained_in
from study.store.specification import Energy, TrialSpec
from study.store.taken import Peak, Trained, too_large

if TYPE_CHECKING:
    from study.cluster.local import Shares
    from study.search.space import SearchSpace
    from study.search.trials import Lookup


# Points that are previewed one by one.
MOST_POINTS = 500


def add_costs_option(parser: argparse.ArgumentParser) -> None:
    """`--costs-from`."""
    parser.add_argument(
        "--costs-from",
        nargs="+",
        type=place,
        metavar="STUDY|FILE",
        help="what trials will cost, by finished ones of these studies, or by files that `calibrate` wrote "
        "(default: of the study itself, and calibrations beside the prepared data)",
    )


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is looked through.

    Attributes:
        ledgers: studies with finished trials; calibrations: files that were named.
        datasets: dataset -> folder of its prepared data, beside which calibrations lie.
        hardware: that a trial would be trained on; None where that is not known here.
        card: name of the GPU here, empty where there is none.
        energy: grid and data centre, for what was calibrated.
        command: what to run where nothing is found.
        strict: whether that is an error: somebody has named where to look.
    """

    ledgers: Sequence[Ledger] = ()
    calibrations: Sequence[Calibration] = ()
    datasets: Mapping[str, Path] = field(default_factory=dict)
    hardware: str | None = None
    card: str = ""
    energy: Energy = field(default_factory=Energy)
    command: str = ""
    strict: bool = False

    def basis(self, spec: TrialSpec) -> Basis:
        """What previews of a trial rest on; see `basis_for` for errors."""
        from study.run.meter import carbon_intensity_kg_per_kwh

        return basis_for(
            spec,
            trained_in(self.ledgers, network_of(spec)),
            self._found(spec),
            hardware=self.hardware,
            remedy=f"run `{self.command}`, or name a study with --costs-from",
            kg_per_kwh=carbon_intensity_kg_per_kwh(self.energy.country) * self.energy.pue,
        )

    def lines(self, spec: TrialSpec) -> list[str]:
        """What a trial will cost on each kind of hardware that is known of, or why nobody says."""
        network, lines = network_of(spec), list[str]()
        known = [*trained_in(self.ledgers, network), *map(Trained.calibrated, self._found(spec))]
        kinds: list[str | None] = [*sorted({each.hardware for each in known if each.network == network})]
        for hardware in kinds or [None]:
            try:
                basis = replace(self, hardware=hardware).basis(spec)
            except StudyError as error:
                if self.strict:
                    raise
                lines.append(f"no costs are told: {error}")
                continue
            found = basis.preview(spec)
            lines.append(f"cost: about {amounts_words(found.amounts, basis.interval)}, {basis.words()}")
        return lines

    def peaks(self, spec: TrialSpec) -> list[Peak]:
        """What trainings of a trial's network reserved on a card like the one here, or of one kind."""
        network = network_of(spec)
        known = [*trained_in(self.ledgers, network), *map(Trained.calibrated, self._found(spec))]
        mine = [each for each in known if each.network == network and each.plans_sha256 == spec.plans_sha256]
        peaks = [peak for each in mine if self.card in each.hardware for peak in each.memory]
        return peaks if len({peak.card_bytes for peak in peaks}) == 1 else []

    def _found(self, spec: TrialSpec) -> list[Calibration]:
        folder = self.datasets.get(spec.dataset)
        return [*self.calibrations, *(() if folder is None else found_beside(folder))]


def sources_of(
    space: SearchSpace, *, data: Path | None, found: Sequence[Path], space_file: Path, strict: bool
) -> Sources:
    """Those of a study that is to be run.

    Args:
        space: of the study, its data checked.
        data: `--data`.
        found: folders of studies, and files of calibrations.
        space_file: as it was named.
        strict: whether any of them was named.

    Raises:
        StudyError: one is no study and no calibration.
    """
    from study.nnunet.datasets import data_paths, find_dataset

    paths = data_paths(data)
    prepared = [find_dataset(paths, name) for name in space.datasets]
    ledgers, files = opened(found)
    words = ["-m", "study", "calibrate", str(space_file), *(["--data", str(data)] if data else [])]
    words += ["--dataset", str(space.datasets[0])] if space.datasets else []
    # What is here is asked of torch, which takes seconds to load: only where there is something to compare it with.
    is_known = bool(ledgers or files or any(any(found_beside(dataset.folder)) for dataset in prepared))
    return Sources(
        ledgers=ledgers,
        calibrations=files,
        datasets={dataset.name: dataset.folder for dataset in prepared},
        hardware=hardware_here(space) if is_known else None,
        card=_card() if is_known and space.resources.gpus != 0 else "",
        energy=space.energy,
        command=f"{python()} {shlex.join(words)}",
        strict=strict,
    )


def opened(named: Iterable[Path]) -> tuple[list[Ledger], list[Calibration]]:
    """Studies and calibrations by their paths, each once; see `sources_of` for errors."""
    ledgers, files = list[Ledger](), list[Calibration]()
    for path in {path.resolve(): path for path in named}.values():
        if path.is_dir():
            ledgers.append(Ledger.open(path))
        else:
            files.append(read_calibration(path))
    return ledgers, files


def hardware_here(space: SearchSpace) -> str | None:
    """What a trial of a space would be trained on, on this machine; None where it wants a GPU and there is none."""
    from study.common.machine import cpu_name

    shares = shares_here(space)
    if shares is None or (space.resources.gpus != 0 and not shares.gpus):
        return None
    gpu = _card() if shares.gpus else ""
    return hardware_words(device=shares.device, gpu=gpu, cpu=cpu_name(), cpus=shares.cpus, gpus=shares.gpus)


def shares_here(space: SearchSpace) -> Shares | None:
    """What a trial would get of this machine, None where none fits."""
    from study.cluster.local import allot, local_node

    with suppress(StudyError):
        return allot(space.resources, [local_node(space.resources)])
    return None


def at_a_time(space: SearchSpace) -> int | None:
    """How many trials would run side by side on this machine, None where none fits."""
    shares = shares_here(space)
    return None if shares is None else shares.in_total


def _card() -> str:
    """Name of the GPU here, empty where there is none."""
    from study.nnunet.torch_tools import cuda_device_names

    return next(iter(cuda_device_names()), "")


class Costs:
    """What trials will cost, one after another.

    Args:
        sources: what is looked through, once for each network.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._bases: dict[tuple[str, ...], Basis | StudyError] = {}
        self._previews: list[tuple[Preview, tuple[float, float] | None]] = []
        self._draws, self._of = 1, 1

    def stand_for(self, *, draws: int, of: int) -> None:
        """The trials are those of so many draws, which stand for so many points."""
        self._draws, self._of = draws, of

    @property
    def bases(self) -> dict[tuple[str, ...], Basis]:
        """Of the networks that were asked for and are known."""
        return {network: basis for network, basis in self._bases.items() if isinstance(basis, Basis)}

    def add(self, spec: TrialSpec) -> str:
        """Count a trial; what it takes, in words, empty where nothing says."""
        basis = self._basis(spec)
        if isinstance(basis, StudyError):
            return ""
        found = basis.preview(spec)
        self._previews.append((found, basis.interval))
        return amounts_words(found.amounts, basis.interval)

    def _basis(self, spec: TrialSpec) -> Basis | StudyError:
        network = network_of(spec)
        if network not in self._bases:
            try:
                self._bases[network] = self.sources.basis(spec)
            except StudyError as error:
                if self.sources.strict:
                    raise
                self._bases[network] = error
        return self._bases[network]

    def together(self) -> Together | None:
        """All of them; None where nothing says."""
        if not self._previews or any(isinstance(basis, StudyError) for basis in self._bases.values()):
            return None
        share = self._of / self._draws
        training = sum_of_amounts([(found.amounts, share) for found, _ in self._previews])
        rest = [found.around for found, _ in self._previews]
        around = sum_of_amounts([(each, share) for each in rest if each is not None]) if all(rest) else None
        lows, highs = zip(*(interval or (math.nan, math.nan) for _, interval in self._previews), strict=True)
        return Together(
            trials=len(self._previews) * share,
            training=training,
            around=around,
            interval=None if math.nan in lows or any(map(math.isnan, lows)) else (min(lows), max(highs)),
        )

    def lines(self, at_a_time: int | None) -> list[str]:
        """What they take together, and what that rests on; or why it is not known."""
        missing = [str(error) for error in self._bases.values() if isinstance(error, StudyError)]
        lines = [f"no costs are told: {error}" for error in missing]
        found = self.together()
        if found is not None:
            whole = self._draws == self._of
            drawn = "" if whole else f" if points were drawn evenly (mean of {self._draws} draws)"
            lines.append(f"together about {amounts_words(found.training, found.interval)}{drawn}; training loops")
            if found.around is not None:
                lines.append(f"  and {amounts_words(found.around)} for set-ups and final validations")
            if at_a_time:
                lines.append(f"  done in about {time_left(found.wall_seconds(at_a_time))}, {at_a_time} at a time")
        first = 2 if len({network[1] for network in self.bases}) > 1 else 1
        lines += [
            f"  {' '.join((*network[:first], *network[3:]))}: {basis.words()}" for network, basis in self.bases.items()
        ]
        placed = sum(found.placed > 0 for found, _ in self._previews)
        if placed:
            lines.append(
                f"  {placed} trials have sizes that none of these trained: placed by a curve through the others"
            )
        return lines


def memory_lines(space: SearchSpace, specs: Iterable[TrialSpec], sources: Sources) -> list[str]:
    """What to say where trainings that share a card do not fit on it; see `store.memory`.

    Args:
        space: says how many share one.
        specs: trials of it.
        sources: what is looked through; cores, and how a card was shared, do not matter here.
    """
    gpus = space.resources.gpus
    if not gpus or gpus == 1:
        return []
    largest: dict[tuple[str, ...], tuple[int, TrialSpec]] = {}
    for spec in specs:
        voxels = max(stage.voxels_per_iteration for stage in spec.curriculum.stages)
        largest[network_of(spec)] = max((voxels, spec), largest.get(network_of(spec), (0, spec)), key=itemgetter(0))
    together = min(math.floor(1 / gpus + 1e-9), space.resources.concurrent or MOST_POINTS)
    found = [too_large([n], sources.peaks(spec), on_a_card=together) for n, spec in largest.values()]
    return [line for line in found if line]


def study_preview(space: SearchSpace, lookup: Lookup, costs: Costs) -> StudyPreview | None:
    """What a study is to cost, as it is recorded with it; None where nothing says.

    Of points that are not known in advance, and of more than `MOST_POINTS`, some stand for all.
    """
    from study.search.algorithms import draws
    from study.search.trials import specs

    listed = space.method.points is not None
    points = list(space.points() if listed else islice(draws(space.searched, space.seed), MOST_POINTS))
    some = points[:: max(1, math.ceil(len(points) / MOST_POINTS))]
    trials = {spec.trial_id: spec for point in some for spec in specs(space, point, lookup)}
    for spec in trials.values():
        costs.add(spec)
    for line in memory_lines(space, trials.values(), costs.sources):
        complain(line)
    costs.stand_for(draws=len(some), of=len(points) if listed else space.trials or 0)
    found = costs.together()
    if found is None:
        return None
    seconds, energy, carbon = found.training
    low, high = found.interval or (None, None)
    return StudyPreview(
        trials=found.trials,
        seconds=seconds,
        energy_kwh=energy,
        co2_kg=carbon,
        around_seconds=found.around[0] if found.around else 0.0,
        low=low,
        high=high,
        listed=listed and len(some) == len(points),
        known=tuple(KnownNetwork.of(network, basis) for network, basis in costs.bases.items()),
    )


@dataclass(frozen=True, kw_only=True)
class Together:
    """What trials will cost: how many, their training loops, and their set-ups and final validations where known."""

    trials: float
    training: Amounts
    around: Amounts | None
    interval: tuple[float, float] | None

    def wall_seconds(self, at_a_time: int) -> float:
        """Until all are done, so many side by side."""
        return (self.training[0] + (self.around[0] if self.around else 0.0)) / at_a_time
