"""`dashboard`: optuna-dashboard on a storage that is rebuilt from the ledger."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from study.buckets.storage import is_url, place
from study.common.setting import whole
from study.store.ledger import Ledger

EXAMPLES = """\
  python -m study dashboard studies/hippo
  python -m study dashboard studies/hippo --port 0
  python -m study dashboard s3://bucket/studies/hippo --storage sqlite:///hippo.db
"""
SQLITE = "sqlite:///"
HIGHEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `dashboard`."""
    parser.add_argument("study", type=place, metavar="DIR|URL", help="study folder, or where it is in object storage")
    parser.add_argument("--port", type=whole, default=8080, metavar="N", help="0 takes a free one (default: 8080)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="keep the Optuna storage: sqlite:///FILE, another database, or a journal file (default: a temporary one)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from study.buckets.view import reading
    from study.common.checks import check_count
    from study.common.tables import PlainConsole

    check_count("--port", args.port, least=0, most=HIGHEST_PORT)
    with reading(args.study) as (folder, view):
        ledger = Ledger.open(folder)
        _check_storage(args.storage, ledger)
        from study.search.dashboard import LOOPBACK, Dashboard, address, listen

        server = listen(args.host, args.port)
        with server, _storage(args.storage) as storage:
            with PlainConsole(stderr=True).status("Reading trials"):
                dashboard = Dashboard(
                    ledger=ledger,
                    storage=storage,
                    update=(lambda: None) if view is None else view.refresh,
                    complain=lambda line: print(line, file=sys.stderr, flush=True),
                )
            if args.host not in LOOPBACK:
                print(f"warning: whoever reaches {args.host} sees this study; it asks for no password", file=sys.stderr)
            where = f"{address(server, args.host)}  (Ctrl-C ends it)"
            dashboard.serve(server, ready=lambda: print(where, flush=True))
    return 0


def _check_storage(storage: str | None, ledger: Ledger) -> None:
    """Raise LedgerError where a running study may be showing itself."""
    from study.common.errors import LedgerError

    if storage is None:
        return
    is_file = storage.startswith(SQLITE) or not is_url(storage)
    file = Path(storage.removeprefix(SQLITE)).resolve() if is_file else None
    if file is not None and file.is_relative_to(ledger.root.resolve()):
        raise LedgerError(f"--storage {storage} is inside the study folder, which is only read; name another place")
    runner = ledger.runner()
    if runner is not None and (file is None or file.exists()):
        raise LedgerError(
            f"the study is being run by {runner}, who may mirror it into --storage; name a new file, or leave it out"
        )


@contextmanager
def _storage(given: str | None) -> Iterator[str]:
    """Where the Optuna study is written: as given, else a file that goes with the dashboard."""
    if given is not None:
        yield given
        return
    from study.buckets.view import scratch

    with TemporaryDirectory(prefix="pgps-dashboard-", dir=scratch(), ignore_cleanup_errors=True) as folder:
        yield str(Path(folder, "study.log"))
