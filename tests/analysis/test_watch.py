"""`watch`: what is served and what is not, how a study stands while it changes, and the page in a real Chromium."""

from __future__ import annotations

import http.client
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from browser import chromium
from ledgers import make_header, make_spec, make_study, start_trial

from study.cli.watch import Watched
from study.common.server import Response, Server
from study.store.ledger import Ledger

TIMEOUT = 600
PAGES = {
    "": Response(content=b"the page", kind="text/html"),
    "figures/a.png": Response(content=b"png", kind="image/png"),
}


def asked(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_files_of_the_report_can_be_read_and_nothing_else() -> None:
    with Server(PAGES.get, "127.0.0.1", 0) as server:
        assert server.address == f"http://127.0.0.1:{server.port}/"
        assert asked(server, "/") == (200, b"the page")
        assert asked(server, "/figures/a.png?x=1") == (200, b"png")
        assert asked(server, "/", "HEAD") == (200, b"")
        for path in ("/../../etc/passwd", "/figures/../../x", "//etc/passwd", "/%2e%2e/x", "/figures", "/%ff%00"):
            assert asked(server, path)[0] == 404
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"):
            assert asked(server, "/", method)[0] == 405
        assert asked(server, "/", host="example.org")[0] == 421
        assert asked(server, "/", host=f"localhost:{server.port}")[0] == 200


def test_elsewhere_than_on_loopback_the_address_has_a_secret() -> None:
    with Server(PAGES.get, "0.0.0.0", 0) as server:
        secret = server.address.rstrip("/").rpartition("/")[2]
        assert len(secret) >= 32
        assert asked(server, f"/{secret}/") == (200, b"the page")
        assert asked(server, f"/{secret}/figures/a.png", host="example.org") == (200, b"png")
        for path in ("/", "/figures/a.png", f"/{secret[:-1]}/", f"/{secret}x/", "/%C3%A9/", f"/x/{secret}/"):
            assert asked(server, path)[0] == 404


@pytest.mark.parametrize(
    "words", [("--port", "TAKEN"), ("--port", "70000"), ("--host", "192.0.2.1"), ("--host", "no.such.host.invalid")]
)
def test_what_cannot_be_listened_on_is_one_line(
    words: tuple[str, str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    study = Ledger.create(tmp_path / "study")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("watch", study.root, *(port if word == "TAKEN" else word for word in words))
    assert words[0].lstrip("-") in said


@pytest.fixture
def study(tmp_path: Path) -> Ledger:
    """32 finished, one failed, one interrupted."""
    study = make_study(tmp_path / "hippo", folds=(0, 1), budgets=(1.0, 0.5), n_cases=4, curve=True)
    broken = study.add(make_spec("pgps", budget=0.25))
    broken.begin_attempt(make_header())
    broken.fail(attempt=0, reason="</script><b>no</b>")
    start_trial(study, make_spec("cps", budget=0.25), seconds=12)
    return study


@contextmanager
def watched(study: Ledger) -> Iterator[Watched]:
    with Watched(ledger=study, where=str(study.root)) as found:
        yield found


def standing(found: Watched) -> str:
    found.look()
    answer = found.answer("standing")
    assert answer is not None
    return answer.content.decode()


def test_how_a_study_stands_and_nothing_in_it_is_touched(study: Ledger) -> None:
    def contents() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in study.root.rglob("*")}

    before = contents()
    with watched(study) as found:
        text = standing(found)
        for expected in (
            "1 interrupted, 1 failed, 32 finished",
            "at iteration 50",
            "by 32 finished trials",
            " left for",
        ):
            assert expected in text
        assert "&lt;/script&gt;&lt;b&gt;no&lt;/b&gt;" in text and "<b>" not in text
        waiting = study.trial(make_spec("cps", budget=0.25).trial_id)
        assert contents() == before
        with waiting.locked():
            running = standing(found)
            assert "Running (1)" in running and "<progress" in running and "Waiting" not in running
            for epoch, dice in enumerate((0.25, 0.5)):
                waiting.append_epoch(
                    replace(study.trials()[0].epochs()[0], epoch=epoch, iteration=25, pseudo_dice=dice)
                )
            assert "validation Dice 0.500 after epoch 2" in standing(found)
            assert '<polyline points="120.0,45.0 120.0,30.0 120.0,30.0"/>' in standing(found)
        assert found.answer("study.json") is None and found.answer("../study.json") is None
    assert not found._room.exists()


def test_an_empty_study_one_that_disappears_and_one_that_is_back(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "empty")
    with watched(study) as found:
        assert "Trained so far: 0:00:00" in standing(found)
        study.root.rename(tmp_path / "away")
        gone = standing(found)
        assert f"no study at {study.root}" in gone and "Traceback" not in gone
        (tmp_path / "away").rename(study.root)
        assert "no study" not in standing(found)
        (study.root / "study.json").write_text("{")
        assert "header: " in standing(found)


@pytest.mark.torture
def test_a_study_that_runs_in_chromium(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    run = subprocess.Popen([sys.executable, "-m", "study", "demo", "--out", str(out)], stdout=subprocess.DEVNULL)
    watch = None
    try:
        while not (out / "study.json").exists():
            assert run.poll() is None
            time.sleep(0.2)
        command = [sys.executable, "-m", "study", "watch", str(out), "--port", "0"]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        address = watch.stdout.readline().split()[0]
        with chromium() as browser:
            for width in (1280, 390):
                page = browser.new_page(viewport={"width": width, "height": 900})
                page.set_default_timeout(1000 * TIMEOUT)
                troubles: list[str] = []
                page.on("pageerror", lambda error, told=troubles: told.append(str(error)))
                page.on("console", lambda one, told=troubles: told.append(one.text) if one.type == "error" else None)
                page.goto(address)
                page.get_by_role("heading", name="As it runs").wait_for()
                page.locator("#live progress").first.wait_for()
                page.locator("#trials").wait_for()
                seen = page.locator("#live .now").inner_text()
                page.wait_for_function("seen => document.querySelector('#live .now').innerText !== seen", arg=seen)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.screenshot(path=tmp_path / f"{width}.png")
                assert troubles == []
            assert run.wait(TIMEOUT) == 0
            page.get_by_text("6 finished").first.wait_for()
            page.locator("figure svg .point").first.wait_for(state="attached")
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(TIMEOUT) == 0
    finally:
        for process in filter(None, (run, watch)):
            process.terminate()
            process.wait()
        shutil.rmtree(out, ignore_errors=True)
