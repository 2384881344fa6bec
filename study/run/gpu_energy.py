"""Energy of a trial's GPU, by the counter that NVML keeps of each card.

The counters of all cards are read when the trial begins, before anything says which card is its own: that is known
only when torch is there. CUDA numbers cards by its own order and visibility, NVML by bus, so they are told by name.

A card that several trainings share is split by what NVML says of their use of it (share of the samples of its
multiprocessors' utilisation), for each reading anew; where it says nothing, evenly, by the fraction that the trial was
allotted. The words of the method say which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

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
