"""A Ray of our own as another user of the machine sees it, without a home and with a TMPDIR too long for sockets."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from study.cluster.local import configure_ray

SECRETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_KEY", "GOOGLE_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "DB_PASSWORD"),
)
STUDY = """
import hashlib, json, os, sys, tempfile
from study.common.process import use_short_temporary_folder
use_short_temporary_folder()
from study.cluster.local import configure_ray
configure_ray(address=None)
import ray
from ray import tune
from study.cluster.nodes import connected
from study.cluster.tuning import TuneThread
from study.search.space import Resources
import types

def work(config):
    os.umask(0o022)
    tune.report({name: hashlib.sha256(os.environ[name].encode()).hexdigest() for name in config["names"]})

space = types.SimpleNamespace(resources=Resources(cpus=1, gpus=0, concurrent=1, data_workers=0))
before = os.umask(0o022)
with connected(space, None), tempfile.TemporaryDirectory() as folder:
    config = tune.RunConfig(storage_path=folder, verbose=0)
    options = {"param_space": {"names": sys.argv[1:]}}
    thread = TuneThread(lambda end: tune.Tuner(work, run_config=config, **options))
    thread.start()
    thread.join()
    assert thread.failures() == [], thread.failures()
    [result] = thread._results
    told = {name: result.metrics[name] for name in sys.argv[1:]}
    session = ray._private.worker._global_node.get_session_dir_path()
print(json.dumps({"told": told, "session": session, "umask": os.umask(0), "token": os.environ["RAY_AUTH_TOKEN"]}))
"""


@dataclass(frozen=True)
class Ran:
    """What a run said, and the values that nobody else may read."""

    said: dict[str, object]
    values: dict[str, str]
    home: Path
    session: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    values = {name: secrets.token_hex(16) for name in SECRETS}
    deep = tmp_path_factory.mktemp("deep") / ("d" * 100)
    home = tmp_path_factory.mktemp("home")
    deep.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {**values, "TMPDIR": str(deep), "HOME": f"{home}/absent", "PYTHONPATH": str(Path.cwd())}
    answer = subprocess.run(
        [sys.executable, "-c", STUDY, *SECRETS], capture_output=True, text=True, timeout=300, env=environment
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    said = json.loads(answer.stdout.splitlines()[-1])
    session = Path(said["session"])
    yield Ran(said=said, values={**values, "token": said["token"]}, home=home, session=session)
    shutil.rmtree(session)


@pytest.mark.cluster
def test_workers_have_the_machines_credentials_without_being_sent_them(ran: Ran) -> None:
    assert ran.said["told"] == {name: hashlib.sha256(ran.values[name].encode()).hexdigest() for name in SECRETS}


@pytest.mark.cluster
def test_no_file_holds_a_secret(ran: Ran) -> None:
    contents = {path: path.read_bytes() for path in ran.session.rglob("*") if path.is_file() and not path.is_symlink()}
    assert len(contents) > 5
    held = [
        (path, name) for path, text in contents.items() for name, value in ran.values.items() if value.encode() in text
    ]
    assert held == []


@pytest.mark.cluster
def test_others_can_enter_no_folder_and_read_no_log(ran: Ran) -> None:
    above = ran.session.parents[1]
    assert (above.stat().st_uid, stat.S_IMODE(above.stat().st_mode)) == (os.getuid(), 0o700)
    readable = [path for path in ran.session.rglob("*") if path.is_file() and path.lstat().st_mode & 0o077]
    # What the driver itself writes is behind that folder's door.
    assert [path for path in readable if path.suffix in (".err", ".out") and "worker-" in path.name] == []
    if os.getuid() == 0:
        # As another user would look.
        look = f"import os; os.setuid(65534); print(os.access({str(ran.session)!r}, os.R_OK))"
        assert subprocess.check_output([sys.executable, "-c", look], text=True).strip() == "False"


@pytest.mark.cluster
def test_a_long_temporary_folder_and_no_home_are_no_trouble(ran: Ran) -> None:
    assert len(str(ran.session)) < 100
    assert list(ran.home.iterdir()) == []


@pytest.mark.cluster
def test_our_own_files_keep_the_users_umask(ran: Ran) -> None:
    assert ran.said["umask"] == 0o022


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o640, 0o600])
def test_a_token_that_ray_left_readable_is_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 64)
    token.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    configure_ray(address="10.0.0.1:6379")
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_a_user_who_has_decided_about_tokens_is_heard(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, "disabled")
    configure_ray(address=None)
    assert [v for v in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if v in os.environ] == [name]
