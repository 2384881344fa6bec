"""What several tests share: real data beside the checkout, and Hypothesis without a clock."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path

import pytest
from buckets import bucket, shared_bucket, storage
from hypothesis import settings
from prepared import data, make_trainer
from raw_data import paths, raw, untouched

from study.__main__ import main
from study.store.ledger import Ledger

__all__ = ["bucket", "data", "make_trainer", "paths", "raw", "shared_bucket", "storage", "untouched"]

# What a developer has set for nnU-Net, Ray, terminals and the rest changes no test; what a test wants, it sets.
OWN = ("nnUNet_", "RAY_", "AWS_", "AZURE_", "GOOGLE_", "PGPS_", "MPL", "CODECARBON_", "TORCHINDUCTOR_", "NUMEXPR_")
OWN_TOO = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TERM", "TZ", "LC_ALL", "LC_CTYPE")
for name in [name for name in os.environ if name.startswith(OWN) or name in OWN_TOO]:
    del os.environ[name]
os.umask(0o022)
time.tzset()
# Temporary files of tests, and of the processes that they kill, are in one folder, which goes with the run; pytest's
# own stay where they would be. The name is short because Ray makes sockets below it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="pgps-")
    # Later than multiprocessing takes away its own folder in it.
    Finalize(None, shutil.rmtree, args=(tempfile.tempdir, True), exitpriority=-1000)

REPOSITORY = Path(__file__).resolve().parent.parent

# A run that was started in the background ignores interrupts, and with it all that its tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples every time, and no deadline: a busy machine is no failure.
settings.register_profile("study", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("study")

# Begun first, so that none of them is left alone at the end; the first two wait more than they compute.
LONGEST = (
    *("test_interrupted_studies", "test_nodes", "test_trial", "test_trial_verb", "test_prepare", "test_corruption"),
    *("test_feed", "test_ranking", "test_trial_host", "test_trainer", "test_report", "test_browser"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest files first."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A new study."""
    return Ledger.create(tmp_path / "study")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must be refused, by exit code 2 and one line; gives that line."""

    def line_of(*words: object, by: Callable[[list[str]], int] = main) -> str:
        capsys.readouterr()
        assert by([*map(str, words)]) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1), printed
        assert printed.err.startswith("error: ")
        return printed.err

    return line_of


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder
