"""`watch`: the report's page of a study that runs, served until Ctrl-C. The study is only read, without a lock."""

from __future__ import annotations

import argparse
import sys

from study.buckets.storage import place
from study.common.setting import whole
from study.store.ledger import Ledger

EXAMPLES = """\
  python -m study watch studies/hippo
  python -m study watch studies/hippo --port 0
  python -m study watch s3://bucket/studies/hippo
  python -m study watch studies/hippo --host 0.0.0.0
"""
HIGHEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `watch`."""
    parser.add_argument("study", type=place, metavar="DIR|URL", help="study folder, or where it is in object storage")
    parser.add_argument("--port", type=whole, default=8088, metavar="N", help="0 takes a free one (default: 8088)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: 127.0.0.1, this machine alone); any other has a secret in its address",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    from study.buckets.view import reading
    from study.cli.watching.server import Server
    from study.cli.watching.study_page import Watched
    from study.common.checks import check_count

    check_count("--port", args.port, least=0, most=HIGHEST_PORT)
    with reading(args.study) as (folder, view):
        watched = Watched(
            ledger=Ledger.open(folder),
            where=str(args.study),
            update=(lambda: None) if view is None else view.refresh,
        )
        with watched, Server(watched.answer, args.host, args.port) as server:
            if not server.is_loopback:
                print("warning: whoever has this address can read the study; it is not encrypted", file=sys.stderr)
            print(f"{server.address}  (Ctrl-C ends it)", flush=True)
            watched.keep_up()
    return 0
