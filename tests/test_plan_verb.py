"""`python -m study plan`: the table, its JSON form, and one clear line for everything that is wrong."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_plan import DOCUMENT

from study.__main__ import main
from study.cli.plan import EXAMPLES
from study.curriculum.table import size_text

BRAIN = "--patch-size 128 128 128 --divisors 32 32 32 --batch-size 2"


def plan(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `plan` prints; it must succeed and complain about nothing."""
    assert main(["plan", *shlex.split(words)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def plan_json(words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(plan(f"{words} --json", capsys))
    return answer


def test_json_has_the_stage_table_and_the_voxel_share(capsys: pytest.CaptureFixture[str]) -> None:
    answer = plan_json(f"{BRAIN} --scheme pgps+ --allocation reference", capsys)
    assert answer["voxel_share"] == pytest.approx(0.5178, abs=1e-4)
    assert answer["stages"][0] == {
        "patch_size": [64, 32, 32],
        "batch_size": 24,
        "crops_per_volume": 1,
        "first_iteration": 0,
        "iterations": 111 * 250,
        "voxels_per_iteration": 64 * 32 * 32 * 24,
    }
    assert [stage["batch_size"] for stage in answer["stages"]] == [24, 12, 6, 4, 3, 2, 2, 2, 2]
    assert sum(stage["iterations"] for stage in answer["stages"]) == answer["total_iterations"] == 250_000
    assert answer["notes"] == []


def test_the_table_shows_every_stage_and_the_share(capsys: pytest.CaptureFixture[str]) -> None:
    words = f"{BRAIN} --scheme performance"
    lines = plan(words, capsys).splitlines()
    for index, stage in enumerate(plan_json(words, capsys)["stages"]):
        cells = [index + 1, size_text(stage["patch_size"]), stage["batch_size"], stage["crops_per_volume"]]
        cells += [stage["first_iteration"], stage["iterations"], f"{stage['voxels_per_iteration']:,}"]
        assert [str(cell) for cell in cells] in [line.split() for line in lines]
    assert any("93.59 % of constant patch size" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_flags_after_the_scheme_override_its_axes(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--min-patch 0.5 --stages 2 --batch-growth 1 --budget 0.5 --order shrinking --chain smallest-first"
    answer = plan_json(f"{BRAIN} --scheme pgps {flags} --epochs 4 --iterations-per-epoch 10", capsys)
    table = [(s["patch_size"], s["batch_size"], s["first_iteration"], s["iterations"]) for s in answer["stages"]]
    assert table == [([128, 128, 128], 2, 0, 10), ([96, 96, 64], 7, 10, 10)]
    assert plan_json(f"{BRAIN} --scheme pgps --batch-growth stepwise", capsys)["stages"][0]["batch_size"] == 24


def test_a_plans_file_says_the_same_as_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(DOCUMENT))
    numbers = plan_json("--patch-size 40 56 40 --divisors 8 8 8 --batch-size 9", capsys)
    assert plan_json(f"--plans '{path}' --configuration 3d_fullres", capsys) == numbers
    assert plan_json(f"--plans '{path}'", capsys) == numbers
    assert plan_json(f"--plans '{path}' --configuration 2d", capsys) != numbers


def test_random_draws_are_counted_and_seeded(capsys: pytest.CaptureFixture[str]) -> None:
    words = f"{BRAIN} --scheme rpss --epochs 100 --iterations-per-epoch 1000"
    first, again, other = (plan_json(f"{words} --seed {seed}", capsys) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(stage["iterations"] for stage in first["stages"]) == 100_000
    # So many draws come close to equal shares of the nine sizes.
    assert first["voxel_share"] == pytest.approx(plan_json(f"{BRAIN} --scheme pgps", capsys)["voxel_share"], abs=0.005)


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("--scheme pgps --stages 20", "20 stages asked for, 9 patch sizes possible here: all are used"),
        ("--scheme cps --stages 3", "3 stages asked for, 1 patch size possible here: all are used"),
        ("--epochs 2 --iterations-per-epoch 2", "9 stages need as many iterations: merged to 4"),
        ("--epochs 2 --allocation reference", "9 stages need as many epochs: merged to 2"),
        ("--epochs 2 --stages 3 --iterations-per-epoch 1", "3 stages need as many iterations: merged to 2"),
        ("--scheme rpss --epochs 1 --iterations-per-epoch 1", "8 stages of 9 never drawn in so few iterations"),
    ],
)
def test_fewer_stages_than_asked_for_are_noted(flags: str, note: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"note: {note}" in plan(f"{BRAIN} {flags}", capsys).splitlines()
    assert plan_json(f"{BRAIN} {flags}", capsys)["notes"] == [note]


def test_what_is_wholly_there_needs_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ("--scheme pgps --stages 3", "--scheme cps", "--scheme rpss", "--scheme pgps --stages 9"):
        assert "note" not in plan(f"{BRAIN} {flags}", capsys)


@pytest.mark.parametrize("example", [line for line in EXAMPLES.splitlines() if "--plans" not in line])
def test_the_examples_of_the_help_work(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(example.partition(" plan ")[2], capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--patch-size 100 128 128", "patch size, axis 0: received 100, legal is a multiple of the divisor 32"),
        ("--patch-size 128 nan 128", "patch size, axis 1: received 'nan', legal is"),
        ("--patch-size 128 128", "divisors: received (32, 32, 32), legal is one per axis of the patch (128, 128)"),
        ("--patch-size 99999999999999999999 128 128", "legal is a whole number from 1 to 1000000"),
        ("--divisors a 32 32", "divisors, axis 0: received 'a', legal is"),
        ("--batch-size 1.5", "batch size: received '1.5', legal is"),
        ("--scheme PGPS", "scheme: received 'PGPS', legal is one of cps, pgps, pgps+, rpss, efficiency, performance"),
        ("--budget half", "budget: received 'half', legal is a number from 0.1 to 1"),
        ("--stages two", "stages: received 'two', legal is a whole number of at least 1"),
        ("--batch-growth step", "batch_growth: received 'step', legal is a number from 0 to 1, or the word"),
        ("--order up", "order: received 'up', legal is one of growing, shrinking, random"),
        ("--epochs ten", "epochs: received 'ten', legal is"),
        ("--iterations-per-epoch 1e9", "iterations_per_epoch: received '1e9', legal is"),
        ("--seed x", "seed: received 'x', legal is"),
    ],
)
def test_an_illegal_value_is_one_line(flags: str, message: str, refused: Callable[..., str]) -> None:
    assert message in refused("plan", *f"{BRAIN} {flags}".split())


@pytest.mark.parametrize(
    ("words", "received"),
    [
        ("", "none"),
        ("--patch-size 128", "--patch-size"),
        ("--patch-size 128 --batch-size 2", "--patch-size --batch-size"),
        ("--configuration 2d", "--configuration"),
        (f"{BRAIN} --configuration 2d", "--patch-size --divisors --batch-size --configuration"),
        (f"{BRAIN} --plans plans.json", "--patch-size --divisors --batch-size --plans"),
        ("--plans plans.json --patch-size 128", "--patch-size --plans"),
    ],
)
def test_missing_and_mixed_options_are_told(words: str, received: str, refused: Callable[..., str]) -> None:
    message = refused("plan", *words.split())
    assert f"network options: received {received!r}, legal is" in message
    assert "--plans --configuration" in message


def test_plans_that_are_not_there_are_told(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "no plans at" in refused("plan", "--plans", tmp_path / "absent.json")
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(DOCUMENT))
    assert "configuration: received '4d', legal is one of 2d, 3d_fullres" in refused(
        *("plan", "--plans", path, "--configuration", "4d")
    )


def test_the_first_phase_of_the_data_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    words = f"{BRAIN} --scheme pgps --epochs 8 --iterations-per-epoch 10 --pdl-fraction 0.25"
    assert plan_json(words, capsys)["pdl"] == {"fraction": 0.25, "metric": "mean-rank", "until_iteration": 20}
    assert plan_json(f"{words} --pdl-epochs 3 --budget 0.5", capsys)["pdl"]["until_iteration"] == 15
    assert plan_json(f"{BRAIN} --scheme pgps --pdl-epochs 3", capsys)["pdl"] is None
    line = "data: 25 % of the training cases, most dissimilar by mse, before iteration 20; then all"
    assert line in plan(f"{words} --pdl-metric mse", capsys)
