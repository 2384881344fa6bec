"""CPU time of a trial's processes: living, ended, killed, orphaned, and the children of a helper."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.run import own_energy
from study.run.own_energy import TRIAL_NAME, CpuTime, ProcessTree, Sight

BURN = """
import os, time
while time.process_time() < {seconds}: pass
"""
BURN_AND_WAIT = BURN + "print(os.getpid(), flush=True)\ninput()"
# Starts a burning process of its own, says its id, and ends when told to.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
input()
"""
# The system counts in hundredths.
TICKS_SECONDS = 0.05


def python(code: str, **options: object) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], **{**pipes, **options})  # type: ignore[call-overload]


@pytest.fixture
def tree() -> Iterator[ProcessTree]:
    tree = ProcessTree()
    yield tree
    tree.close()


def assert_spent(tree: ProcessTree, least: float, mine: float) -> None:
    """What others have burnt, beside what this process itself has since."""
    others = tree.sample().use.own_cpu_seconds - (process_seconds() - mine)
    assert least - TICKS_SECONDS <= others < least + 0.5


def process_seconds() -> float:
    times = os.times()
    return times.user + times.system


@pytest.mark.parametrize("killed", [False, True])
def test_a_child_counts_while_it_lives_and_when_it_has_ended(tree: ProcessTree, killed: bool) -> None:
    mine = process_seconds()
    child = python(BURN_AND_WAIT.format(seconds=0.3))
    child.stdout.readline()
    assert_spent(tree, 0.3, mine)
    if killed:
        child.kill()
        # Not yet waited for.
        assert_spent(tree, 0.3, mine)
    child.communicate("end" if not killed else None)
    assert_spent(tree, 0.3, mine)


def test_a_child_that_began_and_ended_between_two_sights_counts(tree: ProcessTree) -> None:
    mine = process_seconds()
    python(BURN.format(seconds=0.3)).wait()
    assert_spent(tree, 0.3, mine)
    use = tree.sample().use
    assert use.cpu_seconds > 0.3 - TICKS_SECONDS
    assert use.trials is not None and use.trials >= 1


def test_an_orphan_counts_while_it_lives_and_afterwards(tree: ProcessTree) -> None:
    mine = process_seconds()
    parent = python(PARENT.format(code=BURN_AND_WAIT.format(seconds=0.3)))
    orphan = int(parent.stdout.readline())
    assert_spent(tree, 0.3, mine)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert orphan in tree.sample().pids
    assert_spent(tree, 0.3, mine)
    os.kill(orphan, signal.SIGKILL)
    while Path(f"/proc/{orphan}").exists() and orphan in tree.sample().pids:
        pass
    assert_spent(tree, 0.3, mine)


def test_children_of_a_helper_count_though_it_is_no_child_of_ours() -> None:
    run = f"subprocess.run([sys.executable, '-c', {BURN.format(seconds=0.5)!r}])"
    helper = python(f"import subprocess, sys\ninput()\n{run}\nprint('done', flush=True)\ninput()")
    sample = "print(tree.sample().use.own_cpu_seconds, flush=True)"
    make = f"from study.run.own_energy import ProcessTree\ntree = ProcessTree([{helper.pid}])"
    observer = python(f"{make}\n{sample}\ninput()\n{sample}")
    before = float(observer.stdout.readline())
    helper.stdin.write("go\n")
    helper.stdin.flush()
    helper.stdout.readline()
    after = float(observer.communicate("go")[0])
    helper.communicate("end")
    assert after - before >= 0.5 - TICKS_SECONDS


def trials_below(pid: int) -> int:
    """Of this process and those it started: other tests train on the same machine, when they like."""
    everything = own_energy._all_processes()
    below = own_energy._with_descendants([pid], everything)
    return own_energy._trials({one: everything[one] for one in below}) or 0


@pytest.mark.usefixtures("tree")
def test_trials_of_others_are_counted_and_what_they_fork_is_not(tmp_path: Path) -> None:
    alone = trials_below(os.getpid())
    script = tmp_path / "other.py"
    script.write_text(
        "import os\nfrom study.run.own_energy import ProcessTree\ntree = ProcessTree()\n"
        "if os.fork():\n    print('ready', flush=True)\nos.read(0, 1)\n"
    )
    # By way of a shell: the child of a trial is no trial.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen(["sh", "-c", f"{sys.executable} {script}; true"], **pipes)
    other.stdout.readline()
    during = trials_below(os.getpid())
    other.communicate(b"end")
    assert alone >= 1
    assert during == alone + 1


def test_the_name_is_taken_off_again() -> None:
    names = [own_name()]
    tree = ProcessTree()
    names.append(own_name())
    tree.close()
    assert names == [own_name(), TRIAL_NAME]


def own_name() -> str:
    return Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n")


@given(st.data())
def test_nothing_is_lost_or_counted_twice_whatever_ends_and_whoever_waits(data: st.DataObject) -> None:
    """Processes work, fork, end with or without being waited for, between sights; the sum is all the work done."""
    root, work, time = (1, 0), 0.0, CpuTime()
    alive = {root: Sight(parent=0, own_seconds=0.0, children_seconds=0.0)}
    for step in range(1, 8):
        for _ in range(data.draw(st.integers(0, 3))):
            kind = data.draw(st.sampled_from(["work", "fork", "end", "lose"]))
            key = data.draw(st.sampled_from(sorted(alive)))
            sight = alive[key]
            if kind == "work":
                work += 1
                alive[key] = Sight(
                    parent=sight.parent, own_seconds=sight.own_seconds + 1, children_seconds=sight.children_seconds
                )
            elif kind == "fork":
                alive[(max(alive)[0] + 1, step)] = Sight(parent=key[0], own_seconds=0.0, children_seconds=0.0)
            elif key != root and time.known.get(key, alive[key]) == alive[key] and not _has_children(key, alive):
                # Seen as it is now, so that nothing is lost even when nobody waits for it.
                _end(key, alive, waited=kind == "end")
        assert time.seconds(alive) == work
        assert not _has_foreign(alive)


def _has_children(key: tuple[int, int], alive: dict[tuple[int, int], Sight]) -> bool:
    return any(sight.parent == key[0] for sight in alive.values())


def _has_foreign(alive: dict[tuple[int, int], Sight]) -> bool:
    ids = {key[0] for key in alive}
    return any(sight.parent not in ids | {0} for sight in alive.values())


def _end(key: tuple[int, int], alive: dict[tuple[int, int], Sight], *, waited: bool) -> None:
    ended = alive.pop(key)
    parent = next(other for other in alive if other[0] == ended.parent)
    if waited:
        heir = alive[parent]
        alive[parent] = Sight(
            parent=heir.parent, own_seconds=heir.own_seconds, children_seconds=heir.children_seconds + ended.seconds
        )
