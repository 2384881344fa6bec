"""Numbers beside the points of a front, which never overlap: neighbours too close to each other share one label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Size of the label's font, of a digit in it, and distance from point to label, in typographic points.
FONT_SIZE = 8.0
_DIGIT, _HEIGHT, _AWAY = 5.6, 9.5, 5.0


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label whose right lower corner stands at (x, y), in typographic points; it names `first` to `last`."""

    first: int
    last: int
    x: float
    y: float

    @property
    def text(self) -> str:
        """`3`, or `3–5`."""
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"

    def overlaps(self, other: Label) -> bool:
        """Whether the boxes of two labels meet."""
        apart_x = self.x < other.x - other._width or other.x < self.x - self._width
        return not apart_x and abs(self.y - other.y) < _HEIGHT

    def joined(self, other: Label) -> Label:
        """One label for both, at the place of the one more to the left, above both."""
        return Label(
            first=min(self.first, other.first),
            last=max(self.last, other.last),
            x=min(self.x, other.x),
            y=max(self.y, other.y),
        )

    @property
    def _width(self) -> float:
        return _DIGIT * len(self.text)


def place(positions: Sequence[tuple[float, float]]) -> list[Label]:
    """Labels 1 … n for points numbered along a front, up and to the left of them, where a front has no points.

    Args:
        positions: of the points in typographic points, by number.
    """
    labels: list[Label] = []
    for index, (x, y) in enumerate(positions, start=1):
        label = Label(first=index, last=index, x=x - _AWAY, y=y + _AWAY)
        while labels and any(label.overlaps(earlier) for earlier in labels):
            label = label.joined(labels.pop())
        labels.append(label)
    return labels
