"""Command line: `python -m analysis VERB …`. Each verb is a module of `analysis.verbs`, imported when asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from study.errors import StudyError

VERBS = {
    "report": "Pareto fronts, tables and a page from one or several studies",
    "front": "the non-dominated configurations",
}
USER_ERROR = 2
INTERRUPTED = 130


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; options are added for `verb` alone, because they need its module."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="From a study's ledger to Pareto fronts, tables and a page.",
        epilog="`python -m analysis VERB --help` has the options and examples of each verb.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, summary in VERBS.items():
        child = verbs.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        child.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == verb:
            module = load_verb(name)
            child.description = f"{summary[0].upper()}{summary[1:]}."
            child.epilog = f"examples:\n{module.EXAMPLES}"
            module.add_arguments(child)
    return parser


def load_verb(name: str) -> ModuleType:
    """The module of a verb, with EXAMPLES, add_arguments(parser) and run(args) -> exit code."""
    return importlib.import_module(f"analysis.verbs.{name}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb. Returns 0, 2 for an error the user can cure, or 130 when interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = next((word for word in words if word in VERBS), None)
    args = build_parser(verb).parse_args(words)
    try:
        return int(load_verb(args.verb).run(args))
    except StudyError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
