"""`doctor`: what will be used here and what is missing."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from study.terminal import say
from study.verbs.options import add_data_option

EXAMPLES = """\
  python -m study doctor
  python -m study doctor --data data --out studies/hippo
  python -m study doctor --json
"""
SOMETHING_MISSING = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `doctor`."""
    add_data_option(parser)
    parser.add_argument("--out", type=Path, default=Path("studies"), metavar="DIR", help="default: studies")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object per line of the table")


def run(args: argparse.Namespace) -> int:
    """Examine and print; 1 when something required is missing."""
    from study.doctor import Verdict, examine

    findings = examine(args.data, args.out)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            say(f"{finding.verdict.value:8} {finding.subject:20} {finding.found}")
            if finding.remedy:
                say(f"{'':8} {'':20} -> {finding.remedy}")
    return SOMETHING_MISSING if any(finding.verdict is Verdict.MISSING for finding in findings) else 0
