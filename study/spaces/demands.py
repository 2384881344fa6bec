"""What a study demands of where it runs: each trial's share of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.checks import check_count, check_range
from study.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a trial gets of the machine. It decides how fast a study is, not what it finds.

    Attributes:
        cpus: CPU cores of a trial, a fraction allowed; None is a node's cores, shared among its GPUs if it has any.
        gpus: share of one GPU, 0 to 1; None is one where there are GPUs, else 0.
        concurrent: most trials at a time; None is as many as fit.
        data_workers: processes that make batches; None leaves it to the trial.
        compile_cache: folder on each node where its trainings share compiled kernels; None is the user's cache folder.

    Raises:
        InvalidInputError: a field is outside its range.
    """

    cpus: float | None
    gpus: float | None
    concurrent: int | None
    data_workers: int | None
    compile_cache: str | None = None

    def __post_init__(self) -> None:
        if self.cpus is not None:
            check_range("resources.cpus", self.cpus, 0, 1024, above_low=True)
        if self.gpus is not None:
            check_range("resources.gpus", self.gpus, 0, 1)
        if self.concurrent is not None:
            check_count("resources.concurrent", self.concurrent)
        if self.data_workers is not None:
            check_count("resources.data_workers", self.data_workers, least=0)
        if self.compile_cache is not None and not Path(self.compile_cache).is_absolute():
            legal = "an absolute path, the same on each node"
            raise InvalidInputError(field="resources.compile_cache", received=self.compile_cache, legal=legal)
