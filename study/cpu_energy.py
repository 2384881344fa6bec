"""What a trial's own processes draw of a node's CPU, whoever else works on the node.

An idle CPU draws a tenth of its thermal design power, CodeCarbon's own minimum, and a busy one all of it (TDP as
CodeCarbon's table has it). In between we take power as linear in busy cores: a busy second of a core costs
0.9 × TDP / cores. CodeCarbon itself takes the cube of the whole node's load, which makes a trial several times dearer
beside a neighbour.

Where RAPL counts the energy, what is above the idle power is split by CPU time: the trial's against everybody's. Idle
power is charged by share of the cores in both cases.
"""

from __future__ import annotations

from study.readings import NodeUse

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
