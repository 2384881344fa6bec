"""Commands where a shell leaves them with less than usual: closed or full output, no UTF-8, brackets, two signals."""

from __future__ import annotations

import ast
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from examples import HEADER, finish, make_interval, make_spec
from locking import line_from
from test_plan import DOCUMENT

from study.__main__ import main
from study.cli.program import INTERRUPTED, USER_ERROR
from study.common.errors import TrialInterrupted
from study.common.process import Requests, interrupts
from study.common.tables import PlainConsole
from study.common.terminal import complain
from study.run.progress import StopRequest
from study.store.ledger import Ledger

ODD_NAME = "stüdy [bold]µ [red] :smile:"
REASON = "RuntimeError: [Errno 12] [/no] tensor[0] :bug: Größe µ"
PLAN = "plan --patch-size 64 --divisors 16 --batch-size 2"
LOCALES = {
    "C": {"LC_ALL": "C"},
    "POSIX": {"LC_ALL": "POSIX"},
    "no UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "an unknown one": {"LC_ALL": "xx_YY.ISO-8859-1"},
    "ASCII streams": {"PYTHONIOENCODING": "ascii:strict"},
    "Latin 1": {"PYTHONIOENCODING": "latin-1:strict", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose folder, dataset and reasons are what rich or an encoding may stumble over."""
    ledger = Ledger.create(tmp_path_factory.mktemp("place") / ODD_NAME)
    good, bad = ledger.add(make_spec()), ledger.add(make_spec("cps"))
    finish(good)
    bad.begin_attempt(HEADER)
    bad.append_cost(make_interval(0, 40))
    bad.fail(reason=REASON)
    return ledger.root


def shell(line: str, *words: object, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in which `study` is the program."""
    script = f'study() {{ "{sys.executable}" -m study "$@"; }}; set -o pipefail; {line}'
    environment = {name: value for name, value in os.environ.items() if name not in ("LC_ALL", "LANG", "LC_CTYPE")}
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, words)],
        capture_output=True,
        env={**environment, **variables},
        timeout=600,
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"study {PLAN} >&-", 0),
        (f"study {PLAN} 2>&-", 0),
        (f"study {PLAN} >&- 2>&-", 0),
        (f"study {PLAN} <&- >&- 2>&-", 0),
        ("study plan --patch-size 3 2>&-", USER_ERROR),
        ("study plan --patch-size 3 >&- 2>&-", USER_ERROR),
        ("study --help >&-", 0),
        (f"study {PLAN} > /dev/full", USER_ERROR),
        (f"study {PLAN} | true", 0),
        ("study --help | true", 0),
        ('study status "$1" | true', 0),
        ('study status "$1" --json | head -c 1', 0),
        ('study status "$1" >&-', 0),
        ('study status "$1" --watch 0.01 >&1 | true', 0),
    ],
)
def test_output_that_nobody_can_read_ends_in_no_traceback(study: Path, line: str, code: int) -> None:
    answer = shell(line, study)
    assert b"Traceback" not in answer.stderr
    assert b"Exception ignored" not in answer.stderr
    assert answer.returncode == code, answer.stderr
    assert answer.stderr.count(b"\n") <= 1


def test_a_record_is_never_written_to_where_output_was(tmp_path: Path) -> None:
    """The lowest free descriptor is the next file's: with standard output closed, that of a print."""
    code = "from study.common import terminal; terminal.mend_streams(); open('record', 'w'); print('said')"
    answer = subprocess.run(["bash", "-c", f'"{sys.executable}" -c "{code}" <&- >&- 2>&-'], cwd=tmp_path, check=False)
    assert answer.returncode == 0
    assert (tmp_path / "record").read_bytes() == b""


@pytest.mark.parametrize("name", LOCALES)
def test_status_reads_and_prints_whatever_the_locale(study: Path, name: str) -> None:
    answer = shell('study status "$1" && study status "$1" --json', study, **LOCALES[name])
    assert answer.returncode == 0, answer.stderr
    # bash itself warns of a locale that it does not know.
    assert [line for line in answer.stderr.splitlines() if b"setlocale" not in line] == []
    *_, document = answer.stdout.splitlines()
    rows = json.loads(document)
    assert {row["last_error"] for row in rows} == {None, REASON}
    assert all(row["log"].startswith(f"{study}/trials/") for row in rows)


@pytest.mark.parametrize("name", LOCALES)
def test_files_are_utf8_whatever_the_locale(tmp_path: Path, name: str) -> None:
    """A plan with a description in UTF-8, and a space file with a comment in it."""
    (tmp_path / "ü.yaml").write_bytes("# größer\nname: smoke\nsearcher: grid\n".encode())
    answer = shell('study run "$1" --data nowhere', tmp_path / "ü.yaml", **LOCALES[name])
    assert answer.stderr.splitlines()[-1].startswith(b"error: datasets: received None, legal is a dataset id or name; ")


def test_brackets_and_colons_are_printed_as_they_are(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study)]) == 0
    output = capsys.readouterr().out
    assert f"failed: {REASON}; log: {study}/trials/" in output
    assert f"nnUNet_results='{study}/trials/" in output


@pytest.mark.parametrize(
    "text", ["[bold]x[/bold]", "[/]", "[/red]", ":smile:", "\\[x]", "[link=file:///etc]x", "a[0][1]"]
)
def test_a_console_changes_no_text(text: str) -> None:
    from rich.table import Table

    said = io.StringIO()
    console = PlainConsole(said, width=80)
    table = Table("head", box=None, show_header=False)
    table.add_row(text)
    console.print(text)
    console.print(table)
    assert [line.strip() for line in said.getvalue().splitlines()] == [text, text]


def test_every_console_is_made_in_one_place() -> None:
    """So that none of them takes a path for markup; a bar's columns say so themselves."""
    sources = [path for package in ("study", "analysis") for path in Path(package).rglob("*.py")]
    texts = {str(path): path.read_text(encoding="utf-8") for path in sources}
    assert [name for name, text in texts.items() if " Console(" in text or "import Console" in text] == [
        "study/common/tables.py"
    ]
    # Of a bar; a table's have headings.
    columns = [line for text in texts.values() for line in text.splitlines() if 'TextColumn("' in line]
    assert columns
    assert all(line.count('TextColumn("') == line.count("markup=False") for line in columns)


@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "nonsense", "MPLCONFIGDIR": "/dev/null", "OMP_NUM_THREADS": "4,3,2"},
        {"TERM": "dumb", "COLUMNS": "0", "NO_COLOR": "1", "TMPDIR": "/nowhere", "HOME": "/dev/null", "TZ": "No/Where"},
        {
            "FORCE_COLOR": "1",
            "COLUMNS": "abc",
            "PYTHONOPTIMIZE": "2",
            "OMP_NUM_THREADS": "abc",
            "CUDA_VISIBLE_DEVICES": "NoDevFiles",
        },
    ],
)
def test_odd_variables_end_in_no_traceback(study: Path, variables: dict[str, str]) -> None:
    answer = shell('study front "$1" && study status "$1"', study, **variables)
    assert answer.returncode == 0, answer.stderr
    assert b"Traceback" not in answer.stderr
    assert b"21727d3cebb6" in answer.stdout


LIBRARY = """
import sys
from pathlib import Path
from analysis.page.report import write_report
from study.store.ledger import Ledger
from study.nnunet.plans import read_plan
root = Path(sys.argv[1])
plan = read_plan(root.parent / "plans.json", "3d_fullres")
report = write_report([root], root.parent / "report", sections=())
[name] = set(report.trials["study"])
assert sys.flags.utf8_mode == 0
print(ascii([name, sys.getfilesystemencoding(), len(plan.geometry.patch_size), str(report.page)]))
"""


@pytest.mark.parametrize("name", [b"st\xc3\xbcdy", b"latin st\xfcdy", b"\x1b[31mred", b"two\nlines"])
def test_as_a_library_files_are_utf8_too_and_names_may_be_anything(tmp_path: Path, name: bytes) -> None:
    """In the C locale without UTF-8 mode: a plan and reasons in UTF-8, in a folder of whatever bytes."""
    ledger = Ledger.create(tmp_path / os.fsdecode(name))
    ledger.add(make_spec()).fail(reason=f"no file {os.fsdecode(name)} {REASON}")
    (tmp_path / "plans.json").write_text(json.dumps({**DOCUMENT, "note": "größer"}, ensure_ascii=False), "utf-8")
    variables = LOCALES["no UTF-8 mode"]
    answer = subprocess.run(
        [sys.executable, "-c", LIBRARY, str(ledger.root)], capture_output=True, env={**os.environ, **variables}
    )
    assert answer.returncode == 0, answer.stderr
    told, encoding, *_, page = ast.literal_eval(answer.stdout.decode())
    assert (told, encoding) == (name.decode(errors="backslashreplace"), "ascii")
    assert "größe" in Path(page).read_text(encoding="utf-8").lower()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jx\x07", "\\x1b[2Jx\\x07"),
        ("a\rb\u202egnp", "a\\rb\\u202egnp"),
        ("lat\udcfcin \x9b", "lat\\udcfcin \\x9b"),
        ("ü\n\t₂\u202f👩\u200d🔬", "ü\n\t₂\u202f👩\u200d🔬"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = io.StringIO()
    PlainConsole(said).print(text)
    assert said.getvalue().expandtabs() == f"{shown}\n".expandtabs()
    complain(text)
    assert capsys.readouterr().err == f"{shown}\n"


@pytest.mark.parametrize(
    ("times", "new"),
    [
        ([0, 0], [True, False]),
        ([0, 0.9], [True, False]),
        ([0, 1.0], [True, True]),
        ([5, 5.1, 5.2, 6.5], [True, False, False, True]),
        ([0, 0.9, 1.1], [True, False, True]),
    ],
)
def test_signals_within_a_second_are_one_request(times: list[float], new: list[bool]) -> None:
    now = iter(times)
    requests = Requests(lambda: next(now))
    assert [requests.is_new() for _ in times] == new


def test_a_trial_that_is_told_again_cleans_up_undisturbed() -> None:
    stop = StopRequest()
    with pytest.raises(TrialInterrupted):
        stop.signal()
    for _ in range(3):
        stop.signal()
    with pytest.raises(TrialInterrupted):
        stop.check()


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone() -> None:
    done: list[bool] = []

    def look() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with interrupts():
            done.append(signal.getsignal(signal.SIGTERM) == before)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert done == [True]


TWICE = """
import os, signal, sys
from study.cli import program as commandline
class Verb:
    EXAMPLES = ""
    add_arguments = staticmethod(lambda parser: None)
    @staticmethod
    def run(args):
        try:
            print("working", flush=True)
            signal.pause()
        finally:
            os.write(1, b"cleaning\\n")
            signal.sigtimedwait([signal.SIGUSR1], 60)
            os.write(1, b"cleaned\\n")
commandline.CommandLine._module = lambda self, name: Verb
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
sys.exit(commandline.CommandLine(name="x", description="", package="", verbs={"do": "do"}).run(["do"]))
"""


@pytest.mark.parametrize(("first", "second"), itertools.product((signal.SIGINT, signal.SIGTERM), repeat=2))
def test_a_command_that_is_told_twice_at_once_ends_once(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", TWICE], stdout=-1, stderr=-1, text=True) as process:
        assert line_from(process) == "working"
        process.send_signal(first)
        process.send_signal(second)
        assert line_from(process) == "cleaning"
        process.send_signal(signal.SIGUSR1)
        assert line_from(process) == "cleaned"
        assert process.wait() == INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted; the same command resumes\n"


MORE = "from study.common import process; process.REPEAT_SECONDS = 0\n"
"""Each signal is a request of its own, as if they came seconds apart."""


@pytest.mark.parametrize(("first", "second"), itertools.product((signal.SIGINT, signal.SIGTERM), repeat=2))
def test_a_command_that_is_told_again_later_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", MORE + TWICE], stdout=-1, stderr=-1, text=True) as process:
        assert line_from(process) == "working"
        process.send_signal(first)
        assert line_from(process) == "cleaning"
        process.send_signal(second)
        assert process.wait() == INTERRUPTED
        assert process.stderr is not None and process.stdout is not None
        assert process.stdout.read() == ""
        assert process.stderr.read() == "stopped at once; the same command resumes\n"


DRIVER = """
import signal, time
from study.cli import program as commandline
from study.cluster.driver import _Signals
class Verb:
    EXAMPLES = ""
    add_arguments = staticmethod(lambda parser: None)
    @staticmethod
    def run(args):
        with _Signals() as signals:
            print("working", flush=True)
            while not signals.received:
                time.sleep(0.01)
            try:
                print("noted", signals.received, flush=True)
                time.sleep(600)
            finally:
                print("cleaning", flush=True)
                signal.sigtimedwait([signal.SIGUSR1], 600)
commandline.CommandLine._module = lambda self, name: Verb
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
commandline.CommandLine(name="x", description="", package="", verbs={"do": "do"}).run(["do"])
"""


@pytest.mark.parametrize("third", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_told_three_times_ends_with_one_line(third: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", MORE + DRIVER], stdout=-1, stderr=-1, text=True) as process:
        for number, expected in (
            (signal.SIGINT, "working"),
            (signal.SIGTERM, "noted True"),
            (third, "cleaning"),
        ):
            assert line_from(process) == expected
            process.send_signal(number)
        assert process.wait() == INTERRUPTED
        assert process.stderr is not None
        assert process.stderr.read() == "the study was stopped at once; the same command resumes it\n"
