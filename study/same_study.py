"""When two search spaces are one study: all but what may be added to it, and whatever words name the same data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# Keys of a space's identity that may grow, and the one that holds what its defaults came to.
EXTENSIBLE, RESOLVED = ("folds", "seeds"), "resolved"


def differences(stored: Mapping[str, Any], defaults: Mapping[str, str], space: Mapping[str, Any]) -> list[str]:
    """Keys by which a space is another study than the one stored.

    Args:
        stored: as study.json has it.
        defaults: what its defaults came to, see `recorded_defaults`.
        space: identity of a search space.
    """
    given = as_stored(space)
    passed_over = {RESOLVED}
    if defaults and defaults == given.get(RESOLVED):
        # The same data by an id or by its name, with its plans named or left to the default.
        passed_over |= {"dataset", "plans"}
    passed_over |= {name for name in EXTENSIBLE if set(stored.get(name, ())) <= set(given.get(name, ()))}
    return sorted(key for key in {*stored, *given} - passed_over if stored.get(key) != given.get(key))


def recorded_defaults(header: Mapping[str, Any]) -> dict[str, str]:
    """Full dataset name -> plans of a study that has a header; empty when it has not said."""
    space = header.get("space") or {}
    if RESOLVED in space:
        return dict(space[RESOLVED])
    # Studies from before they were recorded name dataset, plans and configuration in their provenance.
    named = header.get("provenance", {}).get("data", {})
    return {name.split("/")[0]: name.split("/")[1] for name in named}


def extended(stored: Mapping[str, Any] | None, space: Mapping[str, Any]) -> dict[str, Any]:
    """What study.json is to have: the stored space with the folds and seeds added, and what defaults came to."""
    given = as_stored(space)
    return {**(stored or given), **{name: given[name] for name in (*EXTENSIBLE, RESOLVED) if name in given}}


def as_stored(space: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data as it reads back: tuples are lists."""
    stored: dict[str, Any] = json.loads(json.dumps(space))
    return stored
