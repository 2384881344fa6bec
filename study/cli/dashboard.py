"""`dashboard`: optuna-dashboard on an Optuna study that is rebuilt from the ledger."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.buckets.storage import is_url, place
from study.common.errors import LedgerError, check_count
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
        help="write the Optuna study there too, at the start and at the end: sqlite:///FILE, another database, or a "
        "journal file",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from study.buckets.view import reading
    from study.common.tables import PlainConsole

    check_count("--port", args.port, least=0, most=HIGHEST_PORT)
    with reading(args.study) as (folder, view):
        ledger = Ledger.open(folder)
        _check_storage(args.storage, ledger)
        from study.common.server import LOOPBACK
        from study.search.dashboard import Dashboard, address, listen
        from study.search.optuna_study import keep

        with listen(args.host, args.port) as server:
            with PlainConsole(stderr=True).status("Reading trials"):
                dashboard = Dashboard(
                    ledger=ledger,
                    update=(lambda: None) if view is None else view.refresh,
                    complain=lambda line: print(line, file=sys.stderr, flush=True),
                )
            if args.storage is not None:
                keep(dashboard.study, args.storage)
            if args.host not in LOOPBACK:
                print(f"warning: whoever reaches {args.host} sees this study; it asks for no password", file=sys.stderr)
            where = f"{address(server, args.host)}  (Ctrl-C ends it)"
            dashboard.serve(server, ready=lambda: print(where, flush=True))
            if args.storage is not None:
                keep(dashboard.study, args.storage)
    return 0


def _check_storage(storage: str | None, ledger: Ledger) -> None:
    """Raise LedgerError for a file that would be part of the study."""
    if storage is None or (is_url(storage) and not storage.startswith(SQLITE)):
        return
    if Path(storage.removeprefix(SQLITE)).resolve().is_relative_to(ledger.root.resolve()):
        raise LedgerError(f"--storage {storage} is inside the study folder, which is only read; name another place")
