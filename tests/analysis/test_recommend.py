"""What is recommended and why, and commands that the real parser reads back as the very same training."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import GEOMETRY, complete, finish_trial, make_header, make_interval, make_result, make_spec, make_study

from analysis.__main__ import main
from analysis.advice.advice import at_knee, best_within
from analysis.advice.text import Recipe, folded, trial_command
from analysis.statistics.study_results import StudyResults, gather
from analysis.tables.columns import OBJECTIVES
from analysis.tables.methods import point_id
from study.__main__ import PROGRAM
from study.cli import trial as trial_verb
from study.common.errors import InvalidInputError, MissingDataError
from study.curriculum.schemes import SCHEMES
from study.nnunet.plans import NetworkPlan
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.specification import TrainingSettings, TrialSpec

RUNTIME = OBJECTIVES["runtime_seconds"]


def study_of(root: Path, *rows: tuple[str, float, float], n_cases: int = 12) -> StudyResults:
    """Schemes with Dice and seconds, on one fold."""
    study = Ledger.create(root / "study")
    for scheme, dice, seconds in rows:
        finish_trial(study, make_spec(scheme), dice=dice, seconds=seconds, n_cases=n_cases)
    return gather([study.root])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), budgets=(1.0, 0.5), n_cases=10).root


def lookup(dataset: str, plans: str, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
    """The network of made-up studies, which needs no data on disk."""
    plan = NetworkPlan(
        dataset=dataset,
        plans=plans,
        configuration=configuration,
        geometry=GEOMETRY,
        data_identifier="",
        previous_stage=None,
        sha256="0" * 64,
    )
    return plan, f"{fold:064d}"


@pytest.fixture(autouse=True, scope="module")
def no_data_on_disk() -> Iterator[None]:
    """`study trial` finds its network without data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.search.trials.prepared_lookup", lambda paths: lookup)
        patch.setenv("nnUNet_preprocessed", "/nowhere")
        yield


def read(command: str) -> TrialSpec:
    """From a command to the specification that `study trial` makes of it."""
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "study", "trial"]
    return trial_verb._spec(PROGRAM.parser("trial").parse_args(words[3:]))


def test_the_best_dice_within_a_limit(tmp_path: Path) -> None:
    results = study_of(tmp_path, ("cps", 0.9, 90), ("pgps", 0.8, 30), ("pgps+", 0.85, 45), ("rpss", 0.7, 20))
    assert [best_within(results, RUNTIME, most).point["method"] for most in (20.0, 44.9, 45.0, 1e9)] == [
        *("rpss", "pgps", "pgps+", "cps"),
    ]


def test_equal_dice_goes_to_the_cheaper(tmp_path: Path) -> None:
    results = study_of(tmp_path, ("cps", 0.8, 90), ("pgps", 0.8, 30))
    assert best_within(results, RUNTIME, 100.0).point["method"] == "pgps"


def test_nothing_within_the_limit_names_the_cheapest_and_a_limit_that_works(tmp_path: Path) -> None:
    results = study_of(tmp_path, ("cps", 0.9, 90.00004), ("pgps", 0.8, 30.00004))
    with pytest.raises(InvalidInputError, match="cheapest configuration took") as caught:
        best_within(results, RUNTIME, 5.0)
    limit = float(caught.value.legal.split()[2].rstrip(","))
    assert best_within(results, RUNTIME, limit).point["method"] == "pgps"


@pytest.mark.parametrize("most", [0.0, -1.0, math.nan, math.inf, "ten"])
def test_a_limit_is_a_positive_number(tmp_path: Path, most: Any) -> None:
    with pytest.raises(InvalidInputError, match="positive number of s"):
        best_within(study_of(tmp_path, ("cps", 0.9, 90)), RUNTIME, most)


def test_a_cost_that_was_not_measured_is_said(tmp_path: Path) -> None:
    root = make_study(tmp_path / "study", measured=False).root
    with pytest.raises(MissingDataError, match="co2_kg"):
        best_within(gather([root]), OBJECTIVES["co2_kg"], 1.0)


def test_the_knee_by_hand(tmp_path: Path) -> None:
    # Scaled: (0, 0), (0.2, 0.8), (0.6, 0.9), (1, 1): the second is 0.6 / sqrt(2) above the line.
    rows = (("rpss", 0.70, 10), ("pgps", 0.78, 30), ("pgps+", 0.79, 70), ("cps", 0.80, 110))
    chosen = at_knee(study_of(tmp_path, *rows), RUNTIME)
    assert chosen.point["method"] == "pgps"
    assert f"{0.6 / math.sqrt(2):.2f} from the line" in chosen.reason


@pytest.mark.parametrize(
    ("rows", "expected", "words"),
    [
        ((("cps", 0.8, 90),), "cps", "the only point"),
        ((("cps", 0.8, 90), ("pgps", 0.9, 30)), "pgps", "the only point"),
        ((("cps", 0.8, 90), ("pgps", 0.7, 30)), "cps", "no knee"),
        ((("cps", 0.8, 90), ("pgps", 0.71, 60), ("rpss", 0.7, 30)), "cps", "no knee"),
    ],
)
def test_fronts_without_a_knee(tmp_path: Path, rows: tuple, expected: str, words: str) -> None:
    chosen = at_knee(study_of(tmp_path, *rows), RUNTIME)
    assert chosen.point["method"] == expected
    assert words in chosen.reason


def test_alternatives_are_those_that_share_cases_and_cannot_be_told_apart(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, dice, seconds in (("cps", 0.8, 90), ("pgps", 0.7999, 30), ("pgps+", 0.6, 20)):
        finish_trial(study, make_spec(scheme), dice=dice, seconds=seconds, n_cases=30)
    finish_trial(study, make_spec("rpss", fold=1), dice=0.79, seconds=25, n_cases=30)
    chosen = best_within(gather([study.root]), RUNTIME, 100.0)
    assert chosen.point["method"] == "cps"
    assert chosen.alternatives["method"].tolist() == ["pgps"]
    assert chosen.alternatives["difference_low"].iloc[0] < 0 < chosen.alternatives["difference_high"].iloc[0]
    assert chosen.alternatives["shared_cases"].iloc[0] == 30
    assert chosen.not_compared == 1


TRAININGS = st.builds(
    TrainingSettings,
    optimizer=st.sampled_from(["sgd", "adamw"]),
    initial_learning_rate=st.none() | st.floats(1e-6, 1),
    momentum=st.none() | st.floats(0, 0.99),
    weight_decay=st.floats(0, 0.1),
    epochs=st.integers(1, 50),
    iterations_per_epoch=st.integers(1, 60),
    foreground_oversampling=st.none() | st.floats(0, 1),
    validation_every_epochs=st.integers(1, 9),
    validation_batches=st.integers(1, 9),
    test_time_mirroring=st.booleans(),
    compile_network=st.sampled_from(["auto", "always", "never"]),
)
AXES = st.fixed_dictionaries(
    {},
    optional={
        "min_patch": st.floats(0, 1),
        "stages": st.integers(1, 12),
        "batch_growth": st.floats(0, 1) | st.just("stepwise"),
        "budget": st.floats(0.1, 1),
        "allocation": st.sampled_from(["even", "reference"]),
        "chain": st.sampled_from(["cyclic", "smallest-first"]),
        "order": st.sampled_from(["growing", "shrinking", "random"]),
        "shared_crops": st.booleans(),
    },
)


@given(st.sampled_from(sorted(SCHEMES)), AXES, TRAININGS, st.integers(0, 9), st.integers(0, 99))
def test_a_command_is_read_back_as_the_same_training(scheme, axes, training, fold, seed) -> None:
    spec = make_spec(scheme, training=training, fold=fold, seed=seed, **axes)
    again = read(trial_command(Recipe.of_spec(spec), out=Path("a folder/with 'quotes'"), data=Path("/some data")))
    assert again.trial_id == spec.trial_id
    assert again.axes == spec.axes
    assert again.training == spec.training


def test_a_folded_command_is_the_same_words_to_a_shell() -> None:
    command = trial_command(Recipe.of_spec(make_spec()), out=Path("it's here"), data=Path("/some data"))
    for line in (command, f"A_VARIABLE='two words' {command}"):
        script = 'python() { printf "%s\\n" "$A_VARIABLE" "$@"; }; '
        whole, lines = (
            subprocess.run(["bash", "-c", script + text], capture_output=True, text=True, check=True).stdout
            for text in (line, folded(line))
        )
        assert whole == lines
        assert "it's here" in whole
    assert max(map(len, folded(command).splitlines())) < 125


def advised(root: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["recommend", str(root), *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def commands_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["purpose"]: one for one in found["commands"]}


def test_the_printed_commands_train_what_they_say(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = advised(root, "--max-runtime-seconds", "20", capsys=capsys)
    commands = commands_of(found)
    assert set(commands) == {"train_again", "train_full_budget", "train_nnunet_length"}
    again, full, long = (
        read(commands[f"train_{name}"]["command"]) for name in ("again", "full_budget", "nnunet_length")
    )
    assert point_id(again) == found["configuration"]["point_id"]
    assert again.trial_id in {one["trial_id"] for one in found["trials"]}
    assert again.axes.budget == 0.5
    assert full.curriculum.total_iterations == 2 * again.curriculum.total_iterations
    assert long.curriculum.total_iterations == 250_000
    points = gather([root]).points.set_index("point_id")
    assert commands["train_full_budget"]["known_dice"] == pytest.approx(points.loc[point_id(full), "dice"])
    assert commands["train_nnunet_length"]["known_dice"] is None
    for spec, name in ((again, "again"), (full, "full_budget"), (long, "nnunet_length")):
        one = commands[f"train_{name}"]
        assert one["trial_id"] == spec.trial_id
        assert f"/recommended/trials/{spec.trial_id}/results " in one["predict"]
        assert re.search(
            r" -f [01] -step_size 0.5 -chk checkpoint_final.pth( --disable_tta)? -device cpu$", one["predict"]
        )


def test_dice_interval_and_cost_are_those_of_the_point(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = advised(root, "--knee", "--cost", "voxels", capsys=capsys)
    point = gather([root]).points.set_index("point_id").loc[found["configuration"]["point_id"]]
    assert (found["dice"]["mean"], found["dice"]["low"], found["dice"]["high"]) == tuple(
        point[["dice", "dice_low", "dice_high"]]
    )
    assert found["dice"]["cases"] == 20
    assert found["cost_per_fold"]["runtime_seconds"] == point["runtime_seconds"]
    assert [one["fold"] for one in found["trials"]] == [0, 1]


def test_the_model_of_the_best_trial_predicts_if_it_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Ledger.create(tmp_path / "study")
    folder = finish_trial(study, make_spec(), dice=0.8, seconds=30, n_cases=3)
    finish_trial(study, make_spec(fold=1), dice=0.7, seconds=30, n_cases=3)
    assert "predict" not in commands_of(advised(study.root, "--knee", capsys=capsys))
    model = folder.results_path / "Dataset004_Hippocampus" / "nnUNetTrainerPGPS__nnUNetPlans__3d_fullres" / "fold_0"
    model.mkdir(parents=True)
    (model / "checkpoint_final.pth").touch()
    copied = shutil.copytree(study.root, tmp_path / "a copy")
    one = commands_of(advised(copied, "--knee", capsys=capsys))["predict"]
    assert one["trial_id"] == folder.trial_id
    assert f"'{copied}/trials/{folder.trial_id}/results'" in one["command"]
    assert " -f 0 -step_size 0.5 -chk checkpoint_final.pth" in one["command"]
    assert main(["recommend", str(copied), "--knee"]) == 0
    assert "predict with the model of its best trial" in capsys.readouterr().out


def test_a_trial_that_is_in_the_named_folder_already_has_one_device(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = advised(root, "--knee", "--out", str(root), capsys=capsys)
    assert commands_of(found)["train_again"]["predict"].count("-device cpu") == 1


def test_from_tables_alone_the_commands_are_the_same(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from analysis.tables.sources import save

    save(gather([root]).tables, tmp_path / "data")
    whole, tables = (advised(place, "--knee", capsys=capsys) for place in (root, tmp_path / "data"))
    for purpose, one in commands_of(tables).items():
        assert one["command"] == commands_of(whole)[purpose]["command"]
        assert one["trial_id"] is one["predict"] is None
    assert any("only tables" in remark for remark in tables["remarks"])


@pytest.mark.parametrize(
    ("recorded", "named", "hint"),
    [
        ("/my data/nnUNet_preprocessed", [], ["--data", "/my data"]),
        ("/my data/nnUNet_preprocessed", ["--data", "/here"], ["--data", "/here"]),
        # A folder that --data cannot name, and an attempt from before it was recorded: nnU-Net's variables are meant.
        ("/my data/prepared", [], []),
        (None, [], []),
        (None, ["--data", "/here"], ["--data", "/here"]),
    ],
)
def test_commands_name_the_data_that_the_trial_was_trained_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recorded: str | None, named: list[str], hint: list[str]
) -> None:
    study, spec = Ledger.create(tmp_path / "s"), make_spec()
    folder = study.add(spec)
    folder.begin_attempt(make_header(preprocessed=recorded))
    folder.append_cost(make_interval(Phase.TRAINING, 9.0, stop=spec.curriculum.total_iterations))
    complete(folder, make_result(spec, 0.8))
    for one in advised(study.root, "--knee", *named, capsys=capsys)["commands"]:
        words = shlex.split(one["command"])
        place = words.index("--data") if "--data" in words else len(words)
        assert words[place : place + 2] == hint


def test_the_text_has_everything(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", str(root), "--max-co2-kg", "1", "--data", "my data"]) == 0
    said = capsys.readouterr().out
    for words in (
        *("Performance, budget 100%: the highest Dice of 16 configurations", "95% interval", "first", "iteration"),
        *("--data 'my data' --out recommended", "nnU-Net's length", "its Dice is not known from this study"),
        *("Energy of CPU and RAM is estimated", "fewer than 50 cases (", "No model of trial"),
    ):
        assert words in said


def test_one_case_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study_of(tmp_path, ("cps", 0.8, 90), n_cases=1)
    assert main(["recommend", str(tmp_path / "study"), "--knee"]) == 0
    assert "without an interval: 1 validation case of 1 fold" in capsys.readouterr().out


def test_of_several_datasets_one_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roots = [make_study(tmp_path / name, dataset=name).root for name in ("Dataset001_A", "Dataset002_B")]
    words = ["recommend", *map(str, roots), "--knee"]
    assert main(words) == 2
    assert "Dataset001_A, Dataset002_B" in capsys.readouterr().err
    assert main([*words, "--dataset", "Dataset002_B"]) == 0
    assert "--dataset Dataset002_B" in capsys.readouterr().out
