"""A command line of verbs, each in a module of its own; only the module of the verb asked for is imported.

A verb's module has EXAMPLES, add_arguments(parser) and run(args) -> exit code. Errors a user can cure are one line.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from study import __version__
from study.common import terminal
from study.common.errors import StudyError, TrialInterrupted
from study.common.process import INTERRUPTED, interrupts, leave_on_signals, use_short_temporary_folder

USER_ERROR = 2
# Pictures are written to files: a backend set for windows may not be installed here. And numexpr, which pandas imports,
# fails at once where it finds no plain number in OMP_NUM_THREADS, for which a list is legal.
LIBRARY_SETTINGS = {"MPLBACKEND": "agg", "NUMEXPR_NUM_THREADS": "1", "NUMEXPR_MAX_THREADS": "1"}
# How the examples of verbs that two programs have name theirs.
OWN_NAME = "python -m analysis"


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """A command line.

    Attributes:
        name: as typed, `python -m study`.
        description: what it is for.
        package: where the verbs' modules are.
        verbs: name -> what the verb does, without a capital or full stop.
        elsewhere: verbs of other packages -> module.
        alone: the verb that is meant when no word is given; without it a verb is needed.
    """

    name: str
    description: str
    package: str
    verbs: Mapping[str, str]
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    alone: str | None = None

    def run(self, arguments: Sequence[str] | None = None) -> int:
        """Run one verb. Returns its exit code, 2 for an error the user can cure, or 130 when interrupted."""
        if arguments is None:
            terminal.use_utf8()
            os.environ.update(LIBRARY_SETTINGS)
        terminal.mend_streams()
        code = self._run(sys.argv[1:] if arguments is None else arguments)
        if arguments is None:
            leave_on_signals(code)
        return code

    def _run(self, arguments: Sequence[str]) -> int:
        words = list(arguments) or ([self.alone] if self.alone else [])
        with interrupts():
            try:
                return self._answer(words) or terminal.flushed()
            except SystemExit:
                terminal.flushed()
                raise
            except TrialInterrupted as interruption:
                return _interrupted(str(interruption))
            except BrokenPipeError:
                return terminal.flushed()
            except (StudyError, OSError) as error:
                if "--debug" in words:
                    traceback.print_exc()
                terminal.complain(f"error: {_in_a_line(error)}")
                return USER_ERROR
            except KeyboardInterrupt:
                return _interrupted("interrupted")

    def _answer(self, words: Sequence[str]) -> int:
        verb = next((word for word in words if word in self.verbs), None)
        args = self.parser(*filter(None, [verb])).parse_args(words)
        use_short_temporary_folder()
        return int(self._module(args.verb).run(args))

    def parser(self, *wanted: str) -> argparse.ArgumentParser:
        """The parser; options are added for the wanted verbs alone, because they need their modules."""
        parser = argparse.ArgumentParser(
            prog=self.name,
            description=self.description,
            epilog=f"`{self.name} VERB --help` has the options and examples of each verb.",
        )
        parser.add_argument("--version", action="version", version=f"pgps-study {__version__}")
        verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
        for name, summary in self.verbs.items():
            child = verbs.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
            child.add_argument("--debug", action="store_true", help="show the traceback of an error")
            if name in wanted:
                module = self._module(name)
                child.description = f"{summary[0].upper()}{summary[1:]}."
                child.epilog = f"examples:\n{module.EXAMPLES.replace(OWN_NAME, self.name)}"
                module.add_arguments(child)
        return parser

    def _module(self, verb: str) -> ModuleType:
        return importlib.import_module(self.elsewhere.get(verb) or f"{self.package}.{verb.replace('-', '_')}")


def _in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, StudyError) else f"{text or type(error).__name__}; --debug shows where"


def _interrupted(text: str) -> int:
    leave_on_signals(INTERRUPTED)
    terminal.complain(text if "same command" in text else f"{text}; the same command resumes")
    return INTERRUPTED
