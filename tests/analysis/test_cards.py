"""Cards: what they say of trials and configurations, and that no text of a study can leave its script element."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import finish_trial, make_header, make_interval, make_spec, make_study, start_trial

from analysis.page.cards import MOST_POINTS, as_script, card_data, card_rows, events_of, predict_command, thinned_curves
from analysis.statistics.study_results import gather
from analysis.tables.sources import save
from study.store.ledger import Ledger
from study.store.prediction import EXTENSION_FOLDER
from study.store.records import Phase
from study.store.trial_folder import TrialState


def cards_of(*roots: Path) -> dict[str, Any]:
    return json.loads(as_script(card_data(gather(roots), events_of(roots))))


def entry_of(root: Path, trial_id: str) -> dict[str, Any]:
    [entry] = cards_of(root)["trials"][trial_id]
    return entry


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), n_cases=5, curve=True)


def test_a_configuration_has_its_interval_classes_stages_and_trials(study: Ledger) -> None:
    configurations = cards_of(study.root)["configurations"]
    assert len(configurations) == 8
    for point in gather([study.root]).points.to_dict("records"):
        card = configurations[point["point_id"]]
        facts = dict(card["facts"])
        assert card["summary"] == point["summary"]
        assert facts["Dice"] == f"{point['dice']:.4f}"
        assert facts["95 % interval"].startswith(f"{point['dice_low']:.4f} to {point['dice_high']:.4f}")
        assert card["trials"] == point["trial_ids"].split()
        stages = [(s["batch_size"], s["first_iteration"], s["iterations"]) for s in json.loads(point["stage_table"])]
        assert [tuple(row[1:]) for row in card["stages"]] == stages
        classes = {label: float(dice) for label, dice in card["classes"]}
        assert classes == pytest.approx({"1": point["dice"] + 0.02, "2": point["dice"] - 0.02}, abs=1e-4)


def test_a_trial_has_its_costs_by_cause_and_they_add_up(study: Ledger) -> None:
    entry = entry_of(study.root, make_spec("cps").trial_id)
    assert dict(entry["facts"])["Total time"] == "119 s"
    causes = [
        ("Set-up", "5.00 s"),
        ("Training", "84.6 s"),
        ("Online validation", "9.40 s"),
        ("Final validation", "20.0 s"),
    ]
    assert [tuple(row[:2]) for row in entry["costs"]] == causes
    assert entry["events"][0][1] == "started: attempt 0, iteration 0"
    assert entry["events"][-1][1].startswith("finished")


def test_waste_is_a_row_of_its_own_and_unmeasured_energy_a_dash(tmp_path: Path) -> None:
    study, spec = Ledger.create(tmp_path / "study"), make_spec()
    folder = start_trial(study, spec, seconds=30, measured=False)
    folder.begin_attempt(make_header(1, resumed_from_iteration=0))
    folder.append_cost(make_interval(Phase.TRAINING, 20, attempt=1, stop=spec.curriculum.total_iterations))
    costs = entry_of(study.root, spec.trial_id)["costs"]
    assert ["Waste, in the above", "30.0 s", "–", "–"] in costs
    assert ["Training", "47.0 s", "–", "–"] in costs


def test_trials_without_a_result_have_cards_with_reason_and_events(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "study")
    for scheme, state in (("cps", TrialState.FAILED), ("pgps", TrialState.INFEASIBLE)):
        start_trial(study, make_spec(scheme), seconds=3).fail(attempt=0, reason=f"{scheme} broke", state=state)
    (study.add(make_spec("rpss")).path / "spec.json").write_text("{")
    cards = cards_of(study.root)
    entries = {scheme: cards["trials"][make_spec(scheme).trial_id][0] for scheme in ("cps", "pgps", "rpss")}
    states = {scheme: dict(entry["facts"])["State"] for scheme, entry in entries.items()}
    assert states == {"cps": "failed", "pgps": "infeasible", "rpss": "unreadable"}
    failed = entries["cps"]
    assert dict(failed["facts"])["Reason"] == "cps broke"
    assert failed["events"][-1][1] == "failed: attempt 0, cps broke"
    assert "command" not in failed
    configuration = cards["configurations"][failed["configuration"]]
    assert configuration["summary"] == "CPS" and "facts" not in configuration


def test_two_studies_with_the_same_trial_share_a_card(tmp_path: Path) -> None:
    roots, trial_id = [tmp_path / "one", tmp_path / "two" / "one"], make_spec().trial_id
    for seconds, root in zip((30, 60), roots, strict=True):
        finish_trial(Ledger.create(root), make_spec(), dice=0.8, seconds=seconds)
    entries = cards_of(*roots)["trials"][trial_id]
    assert [dict(entry["facts"])["Training time"] for entry in entries] == ["30.0 s", "60.0 s"]
    assert all(entry["events"] for entry in entries)
    trials = gather(roots).tables.trials
    assert card_rows(trials) == dict.fromkeys((trial_id, trials["point_id"].iloc[0]), f"trial-{trial_id}")


def test_tables_from_parquet_have_cards_without_events(study: Ledger, tmp_path: Path) -> None:
    save(gather([study.root]).tables, tmp_path)
    trial_id = make_spec("cps").trial_id
    whole = entry_of(study.root, trial_id)
    assert entry_of(tmp_path, trial_id) == {name: value for name, value in whole.items() if name != "events"}


def test_the_command_finds_model_and_trainer_from_the_studys_folder(study: Ledger) -> None:
    trial = gather([study.root]).tables.trials.iloc[0]
    command = predict_command({**trial.to_dict(), "plans": "my plans"})
    assert command.endswith(
        "-tr nnUNetTrainerPGPS -p 'my plans' -c 3d_fullres -f 0 -step_size 0.5 -chk checkpoint_final.pth -device cpu"
    )
    script = command.replace("nnUNetv2_predict", "env #")
    words = re.sub(r"\bpython\b", sys.executable, script, count=1)
    done = subprocess.run(["bash", "-c", words], cwd=study.root, capture_output=True, text=True, check=True)
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert variables["nnUNet_extTrainer"] == str(EXTENSION_FOLDER)
    assert study.trial(trial["trial_id"]).results_path == study.root / variables["nnUNet_results"]


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_a_script_holds_any_text_and_cannot_be_left(data: Any) -> None:
    text = as_script({"data": data})
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"data": data}


@given(count=st.integers(1, 500))
def test_curves_are_thinned_and_keep_their_ends_and_stages(count: int) -> None:
    numbers = range(count)
    epochs = pd.DataFrame({"study": "s", "trial_id": "t", "iteration": [n + 1 for n in numbers]}).assign(
        training_seconds=[float(n) for n in numbers],
        pseudo_dice=[n / count for n in numbers],
        stage=[int(2 * n >= count) for n in numbers],
    )
    # An epoch without a validation is no point.
    curve = thinned_curves(pd.concat([epochs, epochs.tail(1).assign(iteration=count + 1, pseudo_dice=None)]))["s", "t"]
    assert len(curve["dice"]) == min(count, MOST_POINTS)
    assert (curve["iterations"][0], curve["iterations"][-1]) == (1, count)
    assert curve["iterations"] == sorted(curve["iterations"])
    assert len(curve["stages"]) == (count > 1)
    assert all(curve["seconds"][i] >= count / 2 for i in curve["stages"])
