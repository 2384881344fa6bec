"""Colours of methods: told apart with normal sight and with each common colour-blindness, in light and dark."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.figures.style import METHOD_STYLES, PAINTS, SPARE_STYLES, SURFACE, styles_of
from analysis.tables.methods import METHOD_LABELS, with_data_curriculum
from study.curriculum.schemes import SCHEMES

Array = NDArray[np.float64]
# Machado, Oliveira, Fernandes 2009, severity 1: what of linear red, green and blue is seen.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
STYLES = {**METHOD_STYLES, **{style.paint.name: style for style in SPARE_STYLES if style not in METHOD_STYLES.values()}}
# In CIE Lab; a difference of 2.3 is just noticeable.
LEAST_DIFFERENCE = 10.0


def linear(colour: str) -> Array:
    values = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour: str, sight: str) -> Array:
    seen = np.clip(np.array(SIGHTS[sight]) @ linear(colour), 0, 1)
    ratios = XYZ @ seen / WHITE
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    """As WCAG 2 defines it."""
    light, dark = sorted((float(XYZ[1] @ linear(colour)) for colour in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_two_methods_look_alike(theme: str, sight: str) -> None:
    colours = {method: lab(getattr(style.paint, theme), sight) for method, style in STYLES.items()}
    distances = {pair: np.linalg.norm(colours[pair[0]] - colours[pair[1]]) for pair in combinations(colours, 2)}
    assert {pair: distance for pair, distance in distances.items() if distance < LEAST_DIFFERENCE} == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_methods_stand_out_from_the_page_and_text_can_be_read(theme: str) -> None:
    for style in STYLES.values():
        assert contrast(getattr(style.paint, theme), getattr(SURFACE, theme)) >= 2.2
    paints = {paint.name: getattr(paint, theme) for paint in PAINTS}
    for text in ("ink", "muted", "pgps"):
        assert min(contrast(paints[text], paints[ground]) for ground in ("surface", "shade")) >= 4.5


def test_every_scheme_has_its_own_colour_and_marker() -> None:
    patches = {*SCHEMES, "other"}
    assert set(METHOD_STYLES) == set(METHOD_LABELS) == {*patches, *map(with_data_curriculum, patches), "imported"}
    assert len({style.marker for style in STYLES.values()}) == len(STYLES)
    assert len({paint.light for paint in PAINTS}) == len({paint.name for paint in PAINTS}) == len(PAINTS)


def test_a_method_without_a_style_gets_the_next_spare_one_and_published_ones_keep_theirs() -> None:
    own = {method: style for method, style in METHOD_STYLES.items() if style not in SPARE_STYLES}
    more = styles_of([*own, "new", "pdl+new"])
    assert {method: more[method] for method in own} == own
    assert (more["new"], more["pdl+new"]) == SPARE_STYLES[:2]
    last = styles_of(map(str, range(len(SPARE_STYLES) + 1)))
    assert last[str(len(SPARE_STYLES))] == METHOD_STYLES["other"]
