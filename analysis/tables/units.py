"""Numbers for people: the unit that fits an amount, and digits without exponents."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A unit for reading: amount in the file's unit × factor = amount in `unit`."""

    factor: float
    unit: str


# Per unit of the files: (amounts from here on, scale), largest first. Below the last, the last is used.
_SCALES: dict[str, list[tuple[float, Scale]]] = {
    "s": [
        (3 * 3600.0, Scale(factor=1 / 3600, unit="h")),
        (180.0, Scale(factor=1 / 60, unit="min")),
        (0.0, Scale(factor=1.0, unit="s")),
    ],
    "kg": [
        (1.0, Scale(factor=1.0, unit="kg")),
        (1e-3, Scale(factor=1e3, unit="g")),
        (0.0, Scale(factor=1e6, unit="mg")),
    ],
    "kWh": [
        (1.0, Scale(factor=1.0, unit="kWh")),
        (0.0, Scale(factor=1e3, unit="Wh")),
    ],
}


def reading_scale(unit: str, largest: float) -> Scale:
    """The scale that keeps amounts up to `largest` (in the file's unit) short; unknown units stay."""
    for least, scale in _SCALES.get(unit, []):
        if largest >= least:
            return scale
    return Scale(factor=1.0, unit=unit)


def number(value: float, decimals: int | None = None) -> str:
    """A number with fixed decimals, or with three significant digits, and never an exponent."""
    if decimals is None:
        decimals = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def amount(value: float, unit: str) -> str:
    """An amount in the file's unit, as people read it: `94.0 s`, `1.57 h`, `38.1 mg`."""
    scale = reading_scale(unit, abs(value))
    return f"{number(value * scale.factor)} {scale.unit}".strip()


def label_with_unit(label: str, unit: str) -> str:
    """`Training time [s]`, or the label alone."""
    return f"{label} [{unit}]" if unit else label


def counted(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
