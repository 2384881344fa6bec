"""Telling lack of memory and of disk from other faults, also when a library has wrapped them."""

from __future__ import annotations

import errno
import itertools

import pytest

from study.common.errors import DiskFullError
from study.nnunet.failures import disk_full, out_of_memory


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
