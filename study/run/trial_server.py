"""Forks training processes from one that has torch and nnU-Net loaded: only the first trial waits for the imports.

`python -m study.run.trial_server` reads jobs from its standard input, a JSON line each, and trains them one at a time,
each in a child of its own with its own process group. To its standard output go JSON lines: `started` with the child's
pid, what the child says of its progress, and `ended` with its exit code, negative for a signal. It ends when its input
closes; so does a child, having written its checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress

from study.run import preloaded
from study.run.trial_process import Speaker, TrialJob, run_job


def main() -> None:
    """Serve until the input closes."""
    # A pipe of our own to the starter: standard output belongs to whatever a library prints.
    pipe = os.dup(1)
    os.dup2(2, 1)
    _preload()
    while line := _read_line(0):
        _tell(pipe, ended=_train(TrialJob.from_json(line), pipe))


def _preload() -> None:
    import study.nnunet.trainer  # noqa: F401

    preloaded.start()


def _train(job: TrialJob, pipe: int) -> int:
    pid = os.fork()
    if pid == 0:
        _child(job, pipe)
    with suppress(OSError):  # the child may have done it already, or ended
        os.setpgid(pid, pid)
    _tell(pipe, started=pid)
    _, status = os.waitpid(pid, 0)
    # Loaders and validation processes that outlive a killed training.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _child(job: TrialJob, pipe: int) -> None:
    code = 1
    try:
        with suppress(OSError):
            os.setpgid(0, 0)
        preloaded.use()
        code = run_job(job, Speaker(pipe))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not sys.exit: what the server would do at its own exit is not the child's to do.
        os._exit(code)


def _read_line(descriptor: int) -> str:
    """One line, byte by byte: what is buffered here, a child would have a copy of."""
    line = bytearray()
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def _tell(pipe: int, **said: int) -> None:
    try:
        os.write(pipe, (json.dumps(said) + "\n").encode())
    except BrokenPipeError:
        # Nobody is there any more.
        sys.exit(0)


if __name__ == "__main__":
    main()
