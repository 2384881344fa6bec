"""What a study demands of where it runs: each trial's share of a machine, and how energy is measured there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from study.checks import check_choice, check_count, check_range
from study.errors import InvalidInputError

METERS = ("codecarbon", "none")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a trial gets of the machine. It decides how fast a study is, not what it finds.

    Attributes:
        cpus: CPU cores of a trial, a fraction allowed.
        gpus: share of one GPU, 0 to 1.
        concurrent: most trials at a time; None is as many as fit.
        data_workers: processes that make batches; None leaves it to the trial.

    Raises:
        InvalidInputError: a field is outside its range.
    """

    cpus: float
    gpus: float
    concurrent: int | None
    data_workers: int | None

    def __post_init__(self) -> None:
        check_range("resources.cpus", self.cpus, 0, 1024, above_low=True)
        check_range("resources.gpus", self.gpus, 0, 1)
        if self.concurrent is not None:
            check_count("resources.concurrent", self.concurrent)
        if self.data_workers is not None:
            check_count("resources.data_workers", self.data_workers, least=0)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """How energy is measured and turned into CO2.

    Attributes:
        meter: `codecarbon` or `none`.
        country: ISO 3166 alpha-3 code of the grid, None for the world's average. Only its shape is checked here.
        pue: power usage effectiveness of the data centre, 1 to 10.

    Raises:
        InvalidInputError: a field is outside its range.
    """

    meter: str
    country: str | None
    pue: float

    def __post_init__(self) -> None:
        check_choice("energy.meter", self.meter, METERS)
        check_range("energy.pue", self.pue, 1, 10)
        if self.country is not None and not re.fullmatch(r"[A-Z]{3}", str(self.country)):
            legal = "a three-letter ISO 3166 code such as FRA or DEU, or null for the world's average"
            raise InvalidInputError(field="energy.country", received=self.country, legal=legal)
