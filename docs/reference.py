"""Hook of MkDocs: pages of the reference made from their definitions, and the repository's own pages in the site.

A link to a file of the repository that is a page of the site leads there; one to any other file becomes its name.
"""

from __future__ import annotations

import argparse
import inspect
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from analysis.__main__ import PROGRAM as ANALYSIS
from analysis.tables.columns import TABLES, Column
from study.__main__ import PROGRAM as STUDY
from study.cli.schemes import NAMES, card
from study.store import ledger, records, results, specification

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "search_spaces/README.md": "reference/spaces.md",
    "study/deploy/README.md": "howto/deploy.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
_PLACES = {page: source for source, page in OUTSIDE.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """How-to pages that the navigation does not name stand at the end of theirs."""
    (howto,) = (entry["How to"] for entry in config.nav if "How to" in entry)
    named = {page for entry in howto for page in entry.values()}
    for path in sorted((ROOT / "docs" / "howto").glob("*.md")):
        if (page := f"howto/{path.name}") not in named:
            howto.append(page)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    texts = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in OUTSIDE.items()}
    for page, text in {**texts, **reference()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(text: str, page: Any, **_: Any) -> str:
    """Links of the repository as links of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(_PLACES.get(here, f"docs/{here}"))

    def led(link: re.Match[str]) -> str:
        picture, words, target, anchor = link.groups(default="")
        path = posixpath.normpath(posixpath.join(folder, target))
        inside = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if inside is None:
            return words
        return f"{picture}[{words}]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{anchor})"

    return _LINK.sub(led, text)


def reference() -> dict[str, str]:
    """Page -> its text."""
    return {
        "reference/schemes.md": "# Schemes\n\nAlso on the terminal: `pgps schemes`.\n\n"
        + "\n\n".join(f"## {name}\n\n{card(name)}" for name in NAMES),
        "reference/commands.md": "\n\n".join(_commands()),
        "reference/columns.md": "\n\n".join(_columns()),
        "reference/files.md": "\n\n".join(_files()),
    }


def _commands() -> Iterator[str]:
    yield "# Commands"
    yield "`pgps` is `python -m study`. An error that you can cure is one line and exit code 2; 130 is an interrupt."
    for program, name in ((STUDY, "pgps"), (ANALYSIS, "python -m analysis")):
        for verb, summary in program.verbs.items():
            if program is ANALYSIS and STUDY.elsewhere.get(verb, "").startswith("analysis."):
                continue
            yield f"## {name} {verb}"
            parser = _parser(program.parser(verb), verb)
            yield f"{summary[0].upper()}{summary[1:]}."
            yield _table(("argument", "meaning"), [*_arguments(parser)])
            yield f"```sh\n{inspect.cleandoc((parser.epilog or '').partition('examples:')[2])}\n```"


def _parser(parser: argparse.ArgumentParser, verb: str) -> argparse.ArgumentParser:
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = verbs.choices[verb]
    return found


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    formatter = argparse.HelpFormatter(parser.prog)
    for action in parser._actions:
        if action.help != argparse.SUPPRESS and "-h" not in action.option_strings:
            told = formatter._format_action_invocation(action)
            yield f"`{told}`", formatter._expand_help(action) if action.help else ""


def _columns() -> Iterator[str]:
    yield "# Columns"
    yield "The tables of `report/data` (parquet) and of `python -m analysis report`. Missing is missing, never 0."
    for name, columns in TABLES.items():
        yield f"## {name}"
        yield _table(("column", "type", "unit", "meaning"), [_column(each) for each in columns])


def _column(column: Column) -> tuple[str, ...]:
    return f"`{column.name}`", column.dtype, column.unit, column.meaning


def _files() -> Iterator[str]:
    yield "# Files of a study"
    first, _, rest = (inspect.getdoc(ledger) or "").partition("\n\n")
    tree, _, rest = rest.partition("\n\n")
    yield f"{first}\n\n```text\n{inspect.cleandoc(tree)}\n```\n\n{rest}"
    yield "Records are only added to, and sums are taken when read. Times are in seconds, energy in kWh."
    for name, record in (
        ("spec.json", specification.TrialSpec),
        ("attempts/000.json", records.AttemptHeader),
        ("epochs.jsonl", records.EpochReport),
        ("costs.jsonl", records.CostInterval),
        ("result.json", results.TrialResult),
    ):
        yield f"## {name}\n\n{_record(record)}"


def _record(record: type) -> str:
    said, _, rest = (inspect.getdoc(record) or "").partition("Attributes:\n")
    fields = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", rest, flags=re.MULTILINE)
    rows = [(", ".join(f"`{name}`" for name in names.split(", ")), " ".join(told.split())) for names, told in fields]
    return f"{said.strip()}\n\n{_table(('field', 'meaning'), rows)}" if rows else said.strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
