"""Settings are said once: options, columns, domains and documentation come from their definitions.

`python tests/test_setting.py` writes the documentation's tables anew.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shlex
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from examples import BRAIN, make_spec
from hypothesis import given
from hypothesis import strategies as st

from analysis.advice.text import Recipe, trial_command
from analysis.tables.columns import BY_NAME
from study.cli.options import (
    add_curriculum_options,
    add_data_curriculum_options,
    add_training_options,
    axes_from,
    training_from,
)
from study.common.errors import InvalidInputError
from study.common.setting import Setting, documentation, settings_of
from study.curriculum.curriculum import even_spans, resolve, whole_epoch_spans
from study.curriculum.schemes import SCHEMES, Axes, named_axes
from study.search.algorithms import SEARCHERS
from study.search.domains import DEFAULTS, SCHEME
from study.store.specification import PLANS, TrainingSettings
from study.store.stopping import ALL, STOPPING

REPOSITORY = Path(__file__).resolve().parent.parent
KEYS, CURRICULUM = REPOSITORY / "search_spaces" / "README.md", REPOSITORY / "docs" / "explanation" / "curriculum.md"
RECORDS = (Axes, TrainingSettings)
SETTINGS = [(record, name) for record in RECORDS for name in settings_of(record)]


def documented(document: Path) -> str:
    """A document with its tables of settings, schemes and searchers as the definitions have them."""
    text = document.read_text(encoding="utf-8")
    if document == KEYS:
        for record in RECORDS:
            text = with_rows(text, settings_of(record), documentation(record))
        text = with_rows(with_rows(text, ["scheme"], scheme_row()), ["searcher"], searcher_row())
        text = with_rows(text, ["plans"], PLANS.documented())
        return with_rows(text, ["stopping"], stopping_row())
    for name, each in settings_of(Axes).items():
        # It shows some of the axes, in an order of its own.
        text = with_rows(text, [name], f"| `{name}` | {each.kind.legal} | {each.meaning} |")
    return with_rows(text, SCHEMES, "\n".join(map(scheme_documentation, SCHEMES)))


def with_rows(text: str, names: Iterable[str], made: str) -> str:
    """The text with other rows in place of the first that follow each other and begin with some of the names."""
    rows = rf"(?:^\| `(?:{'|'.join(map(re.escape, names))})` \|.*\n)+"
    return re.sub(rows, lambda _: made + "\n", text, count=1, flags=re.MULTILINE)


def scheme_row() -> str:
    names = ", ".join(f"`{name}`" for name in SCHEMES)
    return f"| `scheme` | {names} | `{DEFAULTS[SCHEME]}` | where the settings below start from |"


def searcher_row() -> str:
    names, meanings = ", ".join(f"`{name}`" for name in SEARCHERS), "; ".join(s.meaning for s in SEARCHERS.values())
    return f"| `searcher` | {names} | required | {meanings} |"


def stopping_row() -> str:
    names, meanings = ", ".join(f"`{name}`" for name in STOPPING), "; ".join(STOPPING.values())
    return f"| `stopping` | {names} | `{ALL}` | {meanings} |"


def scheme_documentation(name: str) -> str:
    scheme = SCHEMES[name]
    axes = [
        f"`{axis}: {json.dumps(value).strip(chr(34))}`"
        for axis, value in vars(scheme.axes).items()
        if value != getattr(Axes(), axis)
    ]
    return f"| `{name}` | {scheme.label} | {', '.join(axes) or 'the defaults'} | {scheme.source} |"


def test_the_documentation_is_made_of_the_definitions() -> None:
    for document in (KEYS, CURRICULUM):
        assert document.read_text(encoding="utf-8") == documented(document)
    assert all(f"| `{name}` |" in KEYS.read_text(encoding="utf-8") for _, name in SETTINGS)
    assert all(
        f"| `{name}` | {scheme.label} |" in CURRICULUM.read_text(encoding="utf-8") for name, scheme in SCHEMES.items()
    )


@pytest.mark.parametrize(("record", "name"), SETTINGS)
def test_a_setting_is_a_key_a_column_and_an_option(record: type, name: str) -> None:
    each = settings_of(record)[name]
    block = "curriculum" if record is Axes else "training"
    assert f"{block}.{name}" in DEFAULTS
    assert (BY_NAME[name].label, BY_NAME[name].dtype) == (each.label, each.kind.dtype)
    assert {field.name for field in fields(record)} == set(settings_of(record))
    if each.option is not None:
        assert each.option in parser().format_help()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_curriculum_options(made)
    add_data_curriculum_options(made)
    add_training_options(made)
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {"growth": -1.5, "min_patch": 0.25, "stages": 3},
        {"batch_growth": "stepwise", "order": "shrinking", "allocation": "reference"},
        {"chain": "smallest-first", "chain_start": "one-voxel", "budget": 1 / 3},
        {"pdl_fraction": 0.5, "pdl_epochs": 3, "pdl_metric": "ssim"},
    ],
)
def test_the_command_of_a_training_says_its_settings(changes: dict[str, Any]) -> None:
    training = {"optimizer": "adamw", "test_time_mirroring": False, "stop_at_dice": 0.9, "compile_network": "never"}
    spec = make_spec("pgps", training=training, **changes)
    words = shlex.split(trial_command(Recipe.of_spec(spec), out="studies/first"))
    start = words.index("--scheme")
    args = parser().parse_args(words[start:])
    assert axes_from(args) == spec.axes
    assert training_from(args) == spec.training


@pytest.mark.parametrize(("record", "name"), SETTINGS)
def test_what_is_no_value_of_a_setting_is_refused_by_name(record: type, name: str) -> None:
    for value in (object(), [], float("nan"), "", -99):
        with pytest.raises(InvalidInputError, match=name):
            record(**{name: value})


@pytest.mark.parametrize("zero", [-0.0, 0, 0.0])
def test_zero_is_one_setting_however_it_is_written(zero: float) -> None:
    made = Axes(min_patch=zero, batch_growth=zero, growth=zero, pdl_fraction=zero)
    assert str(made) == str(Axes())


@given(st.integers(1, 12), st.integers(0, 400), st.floats(-3, 3))
def test_stages_grow_as_a_power_and_none_is_empty(count: int, more: int, growth: float) -> None:
    total = count + more
    spans = even_spans(count, total, growth)
    assert [start for start, _ in spans] == [sum(length for _, length in spans[:i]) for i in range(count)]
    assert sum(length for _, length in spans) == total
    assert min(length for _, length in spans) >= 1


def test_the_share_of_a_stage_is_its_number_to_the_power_of_growth() -> None:
    lengths = [length for _, length in even_spans(4, 100_000, 2.0)]
    shares = [k**2 / 30 for k in (1, 2, 3, 4)]
    assert lengths == pytest.approx([share * 100_000 for share in shares], abs=1)
    assert [length for _, length in whole_epoch_spans(4, 30, 7, 2.0)] == [7 * epochs for epochs in (1, 4, 9, 16)]


def test_without_growth_shares_are_what_they_were() -> None:
    assert even_spans(7, 1000, 0.0) == even_spans(7, 1000)
    assert whole_epoch_spans(7, 1000, 250, 0.0) == whole_epoch_spans(7, 1000, 250)
    plain, grown = (resolve(BRAIN, named_axes("pgps", growth=growth)) for growth in (None, 1.0))
    assert plain == resolve(BRAIN, named_axes("pgps"))
    assert grown.voxel_share > plain.voxel_share
    assert math.isclose(sum(stage.iterations for stage in grown.stages), 250_000)


def test_growth_is_idle_in_random_order() -> None:
    plain = make_spec("rpss")
    assert replace(plain, axes=named_axes("rpss", growth=2.0)).trial_id == make_spec("rpss", growth=2.0).trial_id
    assert make_spec("rpss", growth=2.0).trial_id == plain.trial_id


def test_a_setting_without_an_option_is_in_no_command() -> None:
    each: Setting = settings_of(Axes)["shared_crops"]
    assert each.words(True) == []


if __name__ == "__main__":
    for each in (KEYS, CURRICULUM):
        each.write_text(documented(each), encoding="utf-8")
