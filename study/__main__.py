"""Command line: `python -m study VERB …`, also installed as `pgps`. Each verb is a module of `study.verbs`.

Only the module of the verb that was asked for is imported, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from study import __version__
from study.errors import StudyError

VERBS = {
    "demo": "run the embedded study: made-up data, six trials, a Pareto plot",
    "prepare": "convert, verify, plan and preprocess a dataset with nnU-Net, once",
    "plan": "print the stage table of a curriculum and its voxel share",
    "trial": "train one trial, without Ray",
    "run": "run a study on Ray Tune",
    "status": "table of a study's trials",
    "report": "Pareto fronts, tables and a page from a study",
    "bench": "measure start-up, overhead and stage changes",
    "doctor": "what will be used here and what is missing",
}
USER_ERROR = 2
INTERRUPTED = 130


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser; options are added for `verb` alone, because they need its module."""
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description="A hyperparameter study of Progressive Growing of Patch Size on nnU-Net v2.",
        epilog="`python -m study VERB --help` has the options and examples of each verb.",
    )
    parser.add_argument("--version", action="version", version=f"pgps-study {__version__}")
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
    return importlib.import_module(f"study.verbs.{name}")


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
        print("interrupted; the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 0


if __name__ == "__main__":
    sys.exit(main())
