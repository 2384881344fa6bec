"""What several tests share: real data beside the checkout, and Hypothesis without a clock."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from prepared import data, make_trainer

__all__ = ["data", "make_trainer"]

REPOSITORY = Path(__file__).resolve().parent.parent

# The same examples every time, and no deadline: a busy machine is no failure.
settings.register_profile("study", deadline=None, derandomize=True)
settings.load_profile("study")


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the checkout."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder
