"""The dashboard: a real server on a made-up study, asked over HTTP as a browser would, and ended by a signal."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from clusters import until
from searching import (
    FAILED,
    FINISHED,
    GRID_SPACE,
    INFEASIBLE,
    OBJECTIVES,
    OPTUNA_SPACE,
    POINTS,
    RANDOM_SPACE,
    all_of,
    end,
    ledger_of,
    record,
    sampler_of,
    space_of,
)

from study.__main__ import main
from study.search.dashboard import Dashboard, searched_space
from study.search.document import space_from
from study.search.samplers import known_points
from study.store.ledger import Ledger

SPACE = space_of(trials=4)
TIMEOUT = 600


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    """Four points: finished, infeasible, failed, and one not begun."""
    ledger = ledger_of(SPACE, tmp_path / "hippo")
    record(ledger, SPACE, POINTS)
    for proposal, how in zip(all_of(sampler_of(SPACE, ledger)), (FINISHED, INFEASIBLE, FAILED), strict=False):
        end(ledger, SPACE, proposal, how)
    return ledger


def dashboard_of(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "study", "dashboard", *map(str, words), "--port", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def served(*words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running dashboard and where it says it is."""
    process = dashboard_of(*words)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("http"):
            pytest.fail(f"no address: {process.communicate(timeout=TIMEOUT)}")
        yield process, line.split()[0].removesuffix("/dashboard")
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT)


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return json.load(answer)


def detail(url: str) -> Any:
    [summary] = fetch(f"{url}/api/studies")["study_summaries"]
    return fetch(f"{url}/api/studies/{summary['study_id']}?after=0")


@pytest.mark.cluster
def test_a_browser_finds_the_study_with_names_of_objectives_and_sees_it_go_on(study: Ledger) -> None:
    before = {path: path.read_bytes() for path in study.root.rglob("*") if path.is_file()}
    with served(study.root) as (process, url):
        [summary] = fetch(f"{url}/api/studies")["study_summaries"]
        assert (summary["study_name"], summary["directions"]) == ("hippo", ["maximize", "minimize", "minimize"])
        shown = detail(url)
        assert shown["objective_names"] == OBJECTIVES
        assert [trial["state"] for trial in shown["trials"]] == ["Complete", "Pruned", "Fail", "Waiting"]
        values = shown["trials"][0]["values"]
        [outcome] = [outcome for _, outcome in known_points(SPACE, study) if outcome.state is FINISHED]
        assert values == [outcome.values[name] for name in OBJECTIVES]
        with urllib.request.urlopen(f"{url}/dashboard", timeout=TIMEOUT) as page:
            assert page.status == 200 and b"<html" in page.read().lower()
        assert {path: path.read_bytes() for path in study.root.rglob("*") if path.is_file()} == before
        [last] = [proposal for proposal in all_of(sampler_of(SPACE, study)) if proposal.number == 3]
        with study.trial(last.trial_ids[0]).locked():
            until(lambda: detail(url)["trials"][3]["state"] == "Running")
        end(study, SPACE, last, FINISHED)
        until(lambda: [t["state"] for t in detail(url)["trials"]].count("Complete") == 2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.cluster
def test_ctrl_c_ends_it_as_a_matter_of_course_and_a_named_storage_stays(study: Ledger, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    for _ in range(2):
        with served(study.root, "--storage", url) as (process, address):
            assert len(detail(address)["trials"]) == 4
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
    kept = optuna.load_study(study_name="hippo", storage=url)
    assert (len(kept.trials), kept.metric_names) == (4, OBJECTIVES)


@pytest.mark.parametrize(
    "document",
    [
        OPTUNA_SPACE,
        {**RANDOM_SPACE, "trials": 3},
        GRID_SPACE,
        {**GRID_SPACE, "datasets": [1, "Dataset004_Hippocampus"]},
    ],
)
def test_the_space_in_the_header_is_the_one_that_was_searched(document: dict[str, Any], tmp_path: Path) -> None:
    space = space_from(document)
    found = searched_space(ledger_of(space, tmp_path / "a study (2)"))
    assert (found.identity(), found.searched) == (space.identity(), space.searched)
    assert found.name == "a-study--2-"


def test_the_study_is_rebuilt_only_when_the_ledger_has_changed(study: Ledger) -> None:
    dashboard = Dashboard(ledger=study)
    assert not dashboard.refresh()
    [last] = [proposal for proposal in all_of(sampler_of(SPACE, study)) if proposal.number == 3]
    end(study, SPACE, last, FINISHED)
    assert dashboard.refresh()
    assert dashboard.study.trials[3].state is optuna.trial.TrialState.COMPLETE


def test_what_cannot_be_shown_is_one_line(study: Ledger, tmp_path: Path, refused: Callable[..., str]) -> None:
    by_hand = Ledger.create(tmp_path / "by_hand")
    assert "made by hand" in refused("dashboard", by_hand.root, "--port", 0)
    assert "does not exist" in refused("dashboard", tmp_path / "nowhere")
    assert "--port: received 70000" in refused("dashboard", study.root, "--port", 70000)
    assert "inside the study folder" in refused("dashboard", study.root, "--storage", study.root / "a.log")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}: Address already in use" in refused("dashboard", study.root, "--port", port)
    # Before anything is served.
    assert "cannot be used" in refused("dashboard", study.root, "--port", 0, "--storage", "/no/such/folder/a.log")
    header = json.loads((study.root / "study.json").read_text())
    (study.root / "study.json").write_text(json.dumps({**header, "schema": 99}))
    assert "ledger schema 99" in refused("dashboard", study.root)
    header["space"].pop("folds")
    (study.root / "study.json").write_text(json.dumps(header))
    assert "no readable search space" in refused("dashboard", study.root)


def test_run_says_what_shows_a_study_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(tmp_path / "nowhere.yaml"), "--optuna-storage", "sqlite:///a.db"]) == 2
    instead, error = capsys.readouterr().err.splitlines()
    assert "python -m study dashboard" in instead and error.startswith("error: ")


def test_another_host_is_warned_of(study: Ledger) -> None:
    process = dashboard_of(study.root, "--host", "0.0.0.0")
    assert process.stdout is not None and process.stderr is not None
    try:
        assert "no password" in process.stderr.readline()
        assert process.stdout.readline().startswith("http://0.0.0.0:")
    finally:
        process.terminate()
        assert process.wait(timeout=TIMEOUT) == 0
        process.communicate()
