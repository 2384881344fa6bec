"""`status`: the table of a study in every state a trial can be in, from made-up ledgers and without Ray or torch."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import examples
import pytest
from examples import EPOCH, HEADER, make_interval, make_spec
from rich.console import Console
from terminals import in_terminal

from study.__main__ import main
from study.store import status as status_module
from study.store.ledger import Ledger
from study.store.prediction import predict_command
from study.store.readings import StageExecution
from study.store.records import Phase
from study.store.status import StatusBoard, TrialStatus, counts, found, last_ones, rich_table, study_status
from study.store.trial_folder import TrialFolder, TrialState

INTERRUPTED = 130
STATES = ("new", "running", "interrupted", "failed", "finished")


@dataclass(frozen=True)
class Study:
    """A study with one trial in each state."""

    ledger: Ledger
    trials: dict[str, TrialFolder]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    ledger = Ledger.create(tmp_path / "study")
    specs = {
        "new": make_spec("cps"),
        "running": make_spec("pgps", min_patch=0.5, stages=3),
        "interrupted": make_spec("pgps", budget=0.5),
        "failed": make_spec("rpss", seed=3),
        "finished": make_spec("pgps+"),
    }
    trials = {name: ledger.add(spec) for name, spec in specs.items()}
    # Told apart by when they were specified, which may be the same tick of the clock.
    for order, trial in enumerate(trials.values()):
        os.utime(trial.path / "spec.json", ns=(order, order))
    for trial in list(trials.values())[1:]:
        begin(trial)
    trials["interrupted"].append_event("interrupted", attempt=0, reason="stopped after iteration 600 of 1250")
    begin(trials["failed"], attempt=1, resumed=400)
    trials["failed"].fail(attempt=1, reason="RuntimeError: out of\n memory")
    complete(trials["finished"])
    with trials["running"].locked():
        yield Study(ledger, trials)


def begin(trial: TrialFolder, *, attempt: int = 0, resumed: int = 0) -> None:
    """An attempt that trained up to iteration 600 and validated once."""
    trial.begin_attempt(replace(HEADER, attempt=attempt, resumed_from_iteration=resumed))
    trial.append_cost(make_interval(resumed, 600, attempt=attempt))
    trial.append_cost(replace(make_interval(600, 600), phase=Phase.ONLINE_VALIDATION, seconds=5.0, attempt=attempt))
    each = trial.spec().iterations_per_epoch
    for epoch in range(600 // each):
        validated = {} if epoch else {"pseudo_dice": 0.612}
        report = replace(EPOCH, pseudo_dice=None, validation_loss=None, epoch=epoch, iteration=(epoch + 1) * each)
        trial.append_epoch(replace(report, **validated))


def complete(trial: TrialFolder, dice: float = 0.75) -> None:
    """The rest of a training that `begin` began, and its validation."""
    trial.append_cost(make_interval(600, trial.spec().curriculum.total_iterations))
    examples.complete(trial, dice=dice)


def cells(output: str, trial: TrialFolder) -> list[str]:
    """The line of a trial in a printed table, by columns."""
    [line] = [line for line in output.splitlines() if line.startswith(trial.trial_id) and "failed:" not in line]
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_a_line_for_every_state(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study.ledger.root)]) == 0
    output = capsys.readouterr().out
    lines = {state: cells(output, study.trials[state]) for state in STATES}
    assert [lines[state][1] for state in STATES] == list(STATES)
    names = {state: [lines[state][2], lines[state][8]] for state in STATES}
    assert names["new"] == ["cps", "100 %"]
    assert names["running"] == ["pgps min_patch=0.5 stages=3", "100 %"]
    assert names["interrupted"] == ["pgps", "50 %"]
    assert names["failed"][0] == "rpss"
    # Dice, seconds, iteration, fold, seed, budget, patch, grams, waste, attempts.
    assert lines["new"][3:] == ["-", "0.0", "0/2500", "0", "0", "100 %", "-", "-", "0.0", "0"]
    assert [lines["running"][index] for index in (3, 5, 9)] == ["~0.612", "600/2500", "96x96x64"]
    assert lines["interrupted"][5] == "600/1250"
    assert [lines["finished"][index] for index in (3, 5, 9)] == ["0.7500", "2500/2500", "128x128x128"]
    assert lines["failed"][7] == "3"
    # 600 iterations and a validation, then 200 of them and the validation again. An iteration takes 0.25 kWh of a
    # quarter of the node and a GPU, at 0.06 kg per kWh; the validations were given none.
    assert [lines["failed"][4], *lines["failed"][-3:]] == ["810.0", "12000.000", "205.0", "2"]
    assert "1 new, 1 running, 1 interrupted, 1 failed, 1 finished" in output.splitlines()


def test_what_failed_and_how_to_predict_are_told(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", str(study.ledger.root)])
    lines = capsys.readouterr().out.splitlines()
    failed, finished = study.trials["failed"], study.trials["finished"]
    told = f"{failed.trial_id} failed: RuntimeError: out of memory; log: {failed.log_path}"
    assert [line for line in lines if "failed:" in line] == [told]
    position = lines.index(f"predict with the best model, {finished.trial_id}:")
    assert lines[position + 1 :] == [predict_command(finished, finished.spec())]


def test_what_a_gpu_did_not_run_as_intended_is_a_line(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    trial = study.trials["running"]
    why = "not captured: RuntimeError: [stream] is capturing"
    rows = [StageExecution(stage=0, captured=True), *(StageExecution(stage=stage, reason=why) for stage in (1, 2))]
    trial.amend_attempt(replace(HEADER, execution=tuple(rows)))
    assert main(["status", str(study.ledger.root)]) == 0
    assert f"{trial.trial_id}: stage 2, stage 3 ran eager: {why}\n" in capsys.readouterr().out


def test_json_has_what_the_table_has(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study.ledger.root), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in study.trials.values()]
    assert tuple(row["state"] for row in rows) == STATES
    by_state = {row["state"]: row for row in rows}
    assert [row["last_error"] for row in rows] == [None, None, None, "RuntimeError: out of memory", None]
    assert [row["predict"] is not None for row in rows] == [False, False, False, False, True]
    assert by_state["new"]["co2_kg"] is None
    assert by_state["new"]["patch_size"] is None
    assert by_state["running"]["runtime_seconds"] == 605.0
    assert by_state["interrupted"]["axes"]["budget"] == 0.5
    assert by_state["failed"]["waste_seconds"] == 205.0
    assert (by_state["finished"]["dice"], by_state["finished"]["pseudo_dice"]) == (0.75, 0.7)
    assert by_state["finished"]["log"] == str(study.trials["finished"].log_path)


def test_the_best_model_is_the_one_with_the_highest_dice(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    better = study.trials["interrupted"]
    complete(better, dice=0.9)
    main(["status", str(study.ledger.root)])
    assert f"predict with the best model, {better.trial_id}:" in capsys.readouterr().out


def test_who_runs_a_study_is_said_while_somebody_does(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    with study.ledger.locked():
        assert main(["status", str(study.ledger.root)]) == 0
    assert capsys.readouterr().out.startswith(f"being run by process {os.getpid()} on {socket.gethostname()} since ")
    assert main(["status", str(study.ledger.root)]) == 0
    assert "being run by" not in capsys.readouterr().out


def test_what_a_resumed_study_finds(study: Study) -> None:
    rows = study_status(study.ledger)
    open_states = ("running", "interrupted", "failed")
    resumable = ", ".join(f"{study.trials[state].trial_id} at 600" for state in open_states)
    assert found(rows, new=3) == f"found 1 finished, 3 resumable ({resumable}), 3 new; 205.0 s wasted so far"
    assert counts([]) == "no trials"


@pytest.mark.parametrize("broken", ["spec.json", "attempts/000.json", "costs.jsonl"])
@pytest.mark.parametrize("content", ["{", "[]", '{"attempt": 0}'])
def test_an_unreadable_trial_is_one_line(
    study: Study, broken: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = study.trials["finished"]
    (trial.path / broken).write_text(content)
    code = main(["status", str(study.ledger.root)])
    output = capsys.readouterr()
    assert (code, output.err) == (0, "")
    if broken == "costs.jsonl" and content == "{":
        # A line that a crash cut short.
        return
    lines = [line for line in output.out.splitlines() if line.startswith(f"{trial.trial_id} unreadable: ")]
    assert len(lines) == 1
    assert str(trial.path) in lines[0]
    assert "1 new, 1 running, 1 interrupted, 1 failed, 1 unreadable" in output.out


def test_a_folder_that_is_no_study(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert refused("status", tmp_path) == f"error: {tmp_path} is not a study folder (no study.json in it)\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "often", "nan", "3600"])
def test_watching_needs_a_time_between_looks(study: Study, seconds: str, refused: Callable[..., str]) -> None:
    assert refused("status", study.ledger.root, "--watch", seconds).startswith("error: watch: received ")


def test_watching_follows_the_study_until_ctrl_c(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path)
    trial = ledger.add(make_spec("cps"))
    command = [sys.executable, "-m", "study", "status", str(tmp_path), "--watch", "0.05"]
    with in_terminal(command) as terminal:
        terminal.read_until(trial.trial_id)
        begin(trial)
        complete(trial)
        terminal.read_until("finished")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.read_to_end() == INTERRUPTED
    assert terminal.screen.endswith("interrupted; the same command resumes\r\n")


def test_idle_keys_of_the_data_curriculum_are_not_shown(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "study")
    ledger.add(make_spec("cps", pdl_epochs=3))
    ledger.add(make_spec("cps", seed=1, pdl_fraction=0.25, pdl_epochs=4))
    shown = sorted(str(cell) for cell in rich_table(study_status(ledger), 200).columns[2].cells)
    assert shown == ["cps", "cps pdl_fraction=0.25 pdl_epochs=4"]


def test_a_board_reads_what_has_changed_and_nothing_else(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    board, read = StatusBoard(study.ledger), list[str]()
    first = board.rows()
    original = status_module._status

    def counted(folder: TrialFolder) -> TrialStatus:
        read.append(folder.trial_id)
        return original(folder)

    monkeypatch.setattr(status_module, "_status", counted)
    assert board.rows() == first
    assert read == [study.trials["running"].trial_id]
    complete(study.trials["interrupted"])
    new = study.ledger.add(make_spec("efficiency"))
    assert [row.state.value for row in board.rows()] == ["new", "running", "finished", "failed", "finished", "new"]
    assert set(read[1:]) == {study.trials[name].trial_id for name in ("running", "interrupted")} | {new.trial_id}
    (study.trials["finished"].path / "result.json").unlink()
    assert board.rows()[4].state is TrialState.INTERRUPTED


def test_a_long_table_has_the_cells_of_a_short_one(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["status", str(study.ledger.root)])
    short = capsys.readouterr().out.splitlines()
    monkeypatch.setattr("study.common.tables.MOST_LAID_OUT", 0)
    main(["status", str(study.ledger.root)])
    long = capsys.readouterr().out.splitlines()
    for trial in study.trials.values():
        assert cells("\n".join(long), trial) == cells("\n".join(short), trial)


@pytest.mark.parametrize(
    ("height", "shown"), [(0, ["failed"]), (9, ["running", "interrupted", "failed"]), (99, STATES)]
)
def test_a_screen_shows_what_it_has_room_for(study: Study, height: int, shown: list[str]) -> None:
    assert [row.state.value for row in last_ones(study_status(study.ledger), height)] == list(shown)


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_table_fits_its_terminal_with_dice_and_id_whole(
    width: int, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    Console(width=width, highlight=False).print(rich_table(study_status(study.ledger), width))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    for trial in study.trials.values():
        assert sum(trial.trial_id in line.split() for line in lines) == 1
    assert any("0.7500" in line.split() for line in lines)
    assert any("~0.612" in line.split() for line in lines)
    # What every row says is said once; nothing else goes before it.
    constant = "every row: fold 0" in "".join(lines)
    assert constant or "left out" not in "".join(lines)
