"""How steps were run, in words, when compiling pays, and why something broke, also when a library has wrapped it."""

from __future__ import annotations

import errno
import itertools

import pytest

from study.common.errors import DiskFullError, disk_full, out_of_memory
from study.store.readings import (
    FORWARD_SHARE,
    StageExecution,
    compile_costs,
    fallback_lines,
    saved_ns_per_voxel,
    worth_compiling,
)

H200 = "NVIDIA H200"


def test_fallbacks_are_a_line_for_each_reason_and_stages_count_from_one() -> None:
    why = "not captured: RuntimeError: no"
    rows = [
        StageExecution(stage=0, captured=True),
        StageExecution(stage=1, reason=why),
        StageExecution(stage=2, captured=True, reason="not compiled: no compiler"),
        StageExecution(stage=3, reason=why),
        StageExecution(stage=None, reason=why),
        StageExecution(stage=None, reason=why),
    ]
    assert fallback_lines(rows) == [
        "stage 2, stage 4, validation batches ran eager: not captured: RuntimeError: no",
        "stage 3 ran captured: not compiled: no compiler",
    ]
    assert fallback_lines([]) == []


def test_what_compiling_saves_is_the_least_that_was_measured() -> None:
    entry = {
        "rows": [
            {"voxels_per_iteration": 1000, "captured_ms": 2.0, "compiled_ms": 1.0},
            {"voxels_per_iteration": 4000, "captured_ms": 4.0, "compiled_ms": 2.0},
        ]
    }
    assert saved_ns_per_voxel(entry) == pytest.approx(500.0)


def test_a_stage_is_compiled_when_what_is_left_saves_more_than_compiling_takes() -> None:
    (entry,) = (entry for entry in compile_costs() if entry["gpu"] == H200)
    voxels = 2 * 128**3
    enough = entry["compile_seconds"] / (1e-9 * saved_ns_per_voxel(entry) * voxels)

    def compiles(iterations: float, gpu: str = H200, share: float = 1.0) -> bool:
        return worth_compiling(voxels_per_iteration=voxels, iterations_left=int(iterations), gpu=gpu, share=share)

    assert not compiles(0.99 * enough)
    assert compiles(1.01 * enough)
    assert compiles(1.01 * enough, "a GPU that nobody has measured")
    assert not compiles(2 * enough, share=FORWARD_SHARE)
    assert compiles(3.1 * enough, share=FORWARD_SHARE)


def test_long_trainings_compile_their_large_stages_and_short_ones_none() -> None:
    def stages(iterations: int) -> list[bool]:
        sizes = [2 * 64 * 32 * 32, 2 * 64**3, 2 * 96**3, 2 * 128**3]
        return [worth_compiling(voxels_per_iteration=v, iterations_left=iterations, gpu=H200) for v in sizes]

    # A stage of nine in nnU-Net's 250,000 iterations, and in 1,500.
    assert stages(27_777) == [False, True, True, True]
    assert stages(166) == [False, False, False, False]


def raised(*errors: BaseException, hidden: bool = False) -> BaseException:
    """The first error, raised from the second, and so on."""
    for error, cause in itertools.pairwise(errors):
        if hidden:
            error.__context__ = cause
        else:
            error.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)
def test_lack_of_memory_in_any_words(error: Exception) -> None:
    assert out_of_memory(error)
    assert out_of_memory(raised(ValueError("a wrapper"), error))
    assert out_of_memory(raised(ValueError("another"), error, hidden=True))
    assert disk_full(error) is None


def test_torch_says_it_itself() -> None:
    import torch

    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_lack_of_disk(code: int) -> None:
    full = disk_full(raised(RuntimeError("a writer failed"), OSError(code, "No space left on device", "/data/x")))
    assert isinstance(full, DiskFullError)
    assert "/data/x" in str(full)
    assert not out_of_memory(full)


@pytest.mark.parametrize("error", [ValueError("a shape"), RuntimeError("a shape"), OSError(errno.EIO, "I/O error")])
def test_anything_else_is_neither(error: Exception) -> None:
    assert not out_of_memory(error)
    assert disk_full(error) is None
