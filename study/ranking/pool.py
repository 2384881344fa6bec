"""The same function over many items in several processes, which end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from study.errors import MachineError

_T = TypeVar("_T")
Spread = Callable[[Callable[[Any], None], Sequence[Any], Callable[[int], None]], None]
"""Calls a function once per item, somewhere, and reports how many are done."""
_LOOK_SECONDS = 0.3
_MODULES = ["nnunetv2.training.dataloading.nnunet_dataset", "SimpleITK", "skimage.metrics", "study.ranking.tasks"]


def run_all(function: Callable[[_T], None], items: Sequence[_T], workers: int, report: Callable[[int], None]) -> None:
    """Call a function once per item, in no particular order.

    Args:
        function: can be pickled, and leaves its result somewhere.
        items: can be pickled.
        workers: processes; one means this one.
        report: told how many items are done, several times a second.

    Raises:
        MachineError: a process died.
        StudyError: whatever the function raises; what has not begun then is not done.
    """
    report(0)
    if min(workers, len(items)) <= 1:
        for done, item in enumerate(items, start=1):
            function(item)
            report(done)
        return
    # Not forked from here: threads of libraries do not survive a fork.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    pool = ProcessPoolExecutor(min(workers, len(items)), mp_context=context, initializer=_begin)
    try:
        _follow([pool.submit(function, item) for item in items], report)
    except BrokenProcessPool as error:
        raise MachineError(
            "a ranking process died, which a lack of memory can do; the same command goes on from here, "
            "with fewer --workers it needs less memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _follow(futures: Sequence[Future[None]], report: Callable[[int], None]) -> None:
    waiting: set[Future[None]] = set(futures)
    while waiting:
        finished, waiting = wait(waiting, timeout=_LOOK_SECONDS, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
        report(len(futures) - len(waiting))


def _begin() -> None:
    """Leave interruptions to the parent, and end with it.

    A killed parent would leave processes that wait for work for ever, because they hold both ends of its pipe.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)
