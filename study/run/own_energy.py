"""CPU time and energy of a trial's own processes, also of those that have ended, and how busy the node around them is.

A trial's processes are the one that trains, its children and theirs, and those of a forkserver that works for it alone.
When a process ends and its parent waits for it, the system adds its CPU time to the parent's; what was last seen of one
that nobody waited for is kept here, so nothing is counted twice and nothing is lost but what a process did between its
last sight and its end. A reading is a sight; a training takes one every five seconds. Linux' /proc is read at a go,
because psutil takes six times as long; where there is none, this process and the children it waited for are all.

Trials are counted by a name that the process of each gives itself: all that this process may see, whoever started them.

Energy is what a trial's own processes draw of a node's CPU, whoever else works on the node. An idle CPU draws a tenth
of its thermal design power (TDP as CodeCarbon's table has it), CodeCarbon's own minimum, and a busy one all of it. In
between we take power as linear in busy cores: a busy second of a core costs 0.9 × TDP / cores. CodeCarbon itself takes
the cube of the whole node's load, which makes a trial several times dearer beside a neighbour.

Where RAPL counts the energy, what is above the idle power is split by CPU time: the trial's against everybody's. Idle
power is charged by share of the cores in both cases.

Of GPUs the counters that NVML keeps of all cards are read when the trial begins, before anything says which card is its
own: that is known only when torch is there. CUDA numbers cards by its own order and visibility, NVML by bus, so they
are told by name. A card that several trainings share is split by what NVML says of their use of it (share of the
samples of its multiprocessors' utilisation), for each reading anew; where it says nothing, evenly, by the fraction that
the trial was allotted. The words of the method say which.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from study.store.readings import NodeUse

IDLE_SHARE_OF_TDP = 0.1
_JOULES_PER_KWH = 3.6e6


class CpuEnergy:
    """Cumulative energy of a trial's processes, in kWh; None from where it could not be measured on.

    Args:
        tdp_watts: of the node's CPU; cores: of the node; cpus: allotted to the trial.
        counted: the node's energy is counted, by RAPL or the like, and not a model.
    """

    def __init__(self, *, tdp_watts: float, cores: int, cpus: float, counted: bool) -> None:
        self._idle_watts = IDLE_SHARE_OF_TDP * tdp_watts
        self._watts_per_busy_core = (tdp_watts - self._idle_watts) / cores
        self._share = min(1.0, cpus / cores)
        self._counted = counted
        self._own_kwh: float | None = 0.0
        self._idle_kwh: float | None = 0.0
        self._seconds, self._use, self._node_kwh = 0.0, NodeUse(own_cpu_seconds=0.0, cpu_seconds=0.0, trials=None), 0.0

    def read(self, use: NodeUse, *, seconds: float, node_kwh: float | None) -> tuple[float | None, float | None]:
        """(drawn by the trial's processes, its share of the idle power).

        Args:
            use: of the cores since the start.
            seconds: since the start.
            node_kwh: energy of the node since the start as the counter has it; 0 throughout before it counts, when the
                model is taken.
        """
        idle_kwh = self._idle_watts * (seconds - self._seconds) / _JOULES_PER_KWH
        busy_seconds = use.own_cpu_seconds - self._use.own_cpu_seconds
        own_kwh: float | None = self._watts_per_busy_core * busy_seconds / _JOULES_PER_KWH
        if self._counted and node_kwh is None:
            own_kwh = None
        elif self._counted and node_kwh:
            counted_kwh = max(0.0, node_kwh - self._node_kwh)
            idle_kwh = min(idle_kwh, counted_kwh)
            others = max(busy_seconds, use.cpu_seconds - self._use.cpu_seconds)
            own_kwh = (counted_kwh - idle_kwh) * (busy_seconds / others if others else 0.0)
        self._seconds, self._use, self._node_kwh = seconds, use, node_kwh or self._node_kwh
        self._own_kwh = None if own_kwh is None or self._own_kwh is None else self._own_kwh + own_kwh
        self._idle_kwh = (
            None if self._own_kwh is None or self._idle_kwh is None else self._idle_kwh + idle_kwh * self._share
        )
        return self._own_kwh, self._idle_kwh


TRIAL_NAME = "pgps-trial"
Key = tuple[int, int]
"""A process: its id and when it was started, because ids come again."""
_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the name, see proc_pid_stat(5).
_PARENT, _CPU, _CHILDREN_CPU, _STARTED = 1, slice(11, 13), slice(13, 15), 19


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What is seen of a process.

    Attributes:
        parent: id of its parent; started: when, in ticks; name: as lists of processes show it.
        own_seconds: its own CPU time; children_seconds: that of ended children it has waited for.
    """

    parent: int
    own_seconds: float
    children_seconds: float
    started: int = 0
    name: str = ""

    @property
    def seconds(self) -> float:
        return self.own_seconds + self.children_seconds


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Use since the tree was made, and the ids of the trial's living processes."""

    use: NodeUse
    pids: frozenset[int]


class CpuTime:
    """CPU seconds of a changing set of processes."""

    def __init__(self) -> None:
        self._seen: Mapping[Key, Sight] = {}
        self._lost_seconds = 0.0

    @property
    def known(self) -> Mapping[Key, Sight]:
        """What was seen last."""
        return self._seen

    def seconds(self, sights: Mapping[Key, Sight]) -> float:
        """CPU time of all processes of the set so far, given what is seen of those that live."""
        before, self._seen = self._seen, dict(sights)
        keys = {key[0]: key for key in before}
        owed: dict[Key | None, float] = defaultdict(float)
        for key in before.keys() - sights.keys():
            heir: Key | None = key
            while heir is not None and heir not in sights:
                heir = keys.get(before[heir].parent)
            owed[heir] += before[key].seconds
        for heir, seconds in owed.items():
            booked = 0.0 if heir is None else sights[heir].children_seconds - before[heir].children_seconds
            self._lost_seconds += max(0.0, seconds - booked)
        return sum(sight.seconds for sight in sights.values()) + self._lost_seconds


class ProcessTree:
    """The processes of the trial that this process trains.

    Args:
        helpers: ids of processes that are no children of this one and work for it, with theirs.
    """

    def __init__(self, helpers: Sequence[int] = ()) -> None:
        self._roots = (os.getpid(), *helpers)
        self._time = CpuTime()
        self._name = _named(TRIAL_NAME)
        self._own_at_start, self._node_at_start = self._own_seconds(_all_processes())[0], _node_seconds()

    def sample(self) -> Sample:
        processes = _all_processes()
        own_seconds, pids = self._own_seconds(processes)
        use = NodeUse(
            own_cpu_seconds=own_seconds - self._own_at_start,
            cpu_seconds=_node_seconds() - self._node_at_start,
            trials=_trials(processes),
        )
        return Sample(use=use, pids=pids)

    def close(self) -> None:
        _named(self._name)

    def _own_seconds(self, processes: Mapping[int, Sight]) -> tuple[float, frozenset[int]]:
        """CPU time of the roots, their descendants, and orphans that were seen before, and the ids of the living."""
        orphans = [pid for pid, started in self._time.known if pid in processes and processes[pid].started == started]
        pids = _with_descendants([*self._roots, *orphans], processes)
        return self._time.seconds({(pid, processes[pid].started): processes[pid] for pid in pids}), frozenset(pids)


def _with_descendants(roots: Iterable[int], processes: Mapping[int, Sight]) -> set[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, sight in processes.items():
        children[sight.parent].append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in processes and pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found


def _all_processes() -> dict[int, Sight]:
    if not (_PROC / "self" / "stat").exists():
        times = os.times()
        own, children = times.user + times.system, times.children_user + times.children_system
        return {os.getpid(): Sight(parent=os.getppid(), own_seconds=own, children_seconds=children)}
    found = {}
    for name in filter(str.isdigit, os.listdir(_PROC)):  # noqa: PTH208
        # It may end meanwhile. A Path for each would take most of the time.
        with suppress(OSError), open(f"{_PROC}/{name}/stat", "rb") as stat:  # noqa: PTH123
            found[int(name)] = _parsed(stat.read())
    return found


def _parsed(stat: bytes) -> Sight:
    head, _, rest = stat.rpartition(b")")
    fields = rest.split()
    own, children = (sum(map(int, fields[part])) / _TICKS_PER_SECOND for part in (_CPU, _CHILDREN_CPU))
    return Sight(
        parent=int(fields[_PARENT]),
        own_seconds=own,
        children_seconds=children,
        started=int(fields[_STARTED]),
        name=head.partition(b"(")[2].decode(errors="replace"),
    )


def _node_seconds() -> float:
    """CPU time of everything on the node: neither idle nor waiting for a disk, nor taken by other virtual machines."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")))


def _trials(processes: Mapping[int, Sight]) -> int | None:
    """Processes named so whose parent is not: what a training forks has its name."""
    named = {pid for pid, sight in processes.items() if sight.name == TRIAL_NAME}
    return sum(processes[pid].parent not in named for pid in named) or None


def _named(name: str) -> str:
    """Give this process a name in lists of processes; the one it had, or the same where that cannot be done."""
    path = _PROC / str(os.getpid()) / "comm"
    with suppress(OSError):
        before = path.read_text(encoding="utf-8").rstrip("\n")
        path.write_text(name, encoding="utf-8")
        return before
    return name


_MILLIJOULES_PER_KWH = 3.6e9
ABSENT, UNMEASURED = "absent", "unmeasured"
MEASURED, BY_USE, EVENLY = "measured", "measured, split by use", "measured, split evenly"


def load_nvml() -> Any:
    """NVIDIA's management library, started; raises whatever keeps it from that."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml


@dataclass(frozen=True, kw_only=True)
class Card:
    """One card: NVML's index and handle, and its counter in mJ when the trial began."""

    index: int
    handle: Any
    millijoules: int


class GpuEnergy:
    """Cumulative energy of the trial's card. Whatever breaks in NVML is a reason, and the energy unmeasured.

    Args:
        load: gives the `pynvml` module, or one like it.
        fraction: of the card, that the trial was allotted; 1 is the whole.
    """

    def __init__(self, *, fraction: float = 1.0, load: Callable[[], Any] = load_nvml) -> None:
        self._fraction = min(1.0, fraction) or 1.0
        self._cards: dict[str, Card] = {}
        self._mine: list[Card] | None = []
        self._reason = ""
        self._kwh, self._own_kwh, self._since = 0.0, 0.0, 0
        try:
            self._nvml = load()
            for index in range(self._nvml.nvmlDeviceGetCount()):
                self._note(index)
        except Exception as error:
            self._reason = _words(error)

    def choose(self, uuids: Sequence[str]) -> tuple[str, str, tuple[int, ...]]:
        """Say which cards are the trial's.

        Args:
            uuids: as CUDA names them; none when it uses no GPU.

        Returns:
            (method, reason why it is unmeasured or nothing, NVML's indices).
        """
        names = [uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}" for uuid in uuids]
        unknown = [name for name in names if name not in self._cards]
        if unknown:
            self._mine = None
            self._reason = self._reason or (
                f"NVML counts no energy of {unknown[0]}, but of {', '.join(self._cards) or 'none'}: "
                "only whole cards have a counter, no MIG instance has"
            )
            return UNMEASURED, self._reason, ()
        self._mine, self._reason = [self._cards[name] for name in names], ""
        if not names:
            return ABSENT, "", ()
        indices = tuple(card.index for card in self._mine)
        return (MEASURED if self._fraction == 1 else BY_USE if self._tells_use() else EVENLY), "", indices

    def read(self, pids: Collection[int]) -> tuple[float | None, float | None, str]:
        """(kWh of the card since the start, kWh of it that are the trial's, reason why it is unmeasured or nothing).

        Args:
            pids: of the trial's processes.
        """
        if self._mine is None:
            return None, None, self._reason
        try:
            kwh = sum(self._counted(card) for card in self._mine)
        except Exception as error:
            self._mine, self._reason = None, _words(error)
            return None, None, self._reason
        share = self._fraction if self._fraction == 1 or not self._mine else self._share(pids)
        self._own_kwh += share * (kwh - self._kwh)
        self._kwh = kwh
        return self._kwh, self._own_kwh, ""

    def _note(self, index: int) -> None:
        nvml, handle = self._nvml, self._nvml.nvmlDeviceGetHandleByIndex(index)
        try:
            counter = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except Exception as error:  # a card older than Volta, or one cut into parts
            self._reason = f"card {index}: {_words(error)}"
            return
        uuid = nvml.nvmlDeviceGetUUID(handle)
        name = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
        self._cards[name] = Card(index=index, handle=handle, millijoules=counter)

    def _counted(self, card: Card) -> float:
        used = self._nvml.nvmlDeviceGetTotalEnergyConsumption(card.handle) - card.millijoules
        if used < 0:
            raise ValueError(f"the counter of card {card.index} began anew: its driver was loaded again")
        return float(used) / _MILLIJOULES_PER_KWH

    def _share(self, pids: Collection[int]) -> float:
        """The trial's part of the use of its card since the last reading; its fraction where nothing is known."""
        samples = [sample for card in self._mine or () for sample in self._samples(card)]
        self._since = max([self._since, *(sample.timeStamp for sample in samples)])
        used = sum(sample.smUtil for sample in samples)
        own = [sample.smUtil for sample in samples if sample.pid in pids]
        # NVML may know processes by other ids than a container does.
        return sum(own) / used if used and own else self._fraction

    def _samples(self, card: Card) -> list[Any]:
        try:
            return list(self._nvml.nvmlDeviceGetProcessUtilization(card.handle, self._since))
        except Exception:  # none since, or none at all
            return []

    def _tells_use(self) -> bool:
        try:
            self._nvml.nvmlDeviceGetProcessUtilization((self._mine or [])[0].handle, 0)
        except Exception as error:
            # Nobody has used the card yet.
            return type(error).__name__ == "NVMLError_NotFound"
        return True


def _words(error: Exception) -> str:
    return f"NVML: {type(error).__name__}: {' '.join(str(error).split())}"
