"""A real grid: every point of `grid.yaml` trained once on the demo's made-up data, kept to be searched and replayed.

`python -m benchmarks.grid STUDY` writes `grid.json` anew from a finished study of that space:

    python -c "from pathlib import Path; from study.cli.demo import prepare_phantoms; prepare_phantoms(Path('data'))"
    python -m study run benchmarks/grid.yaml --data data --out studies/grid
    python -m benchmarks.grid studies/grid

Points that resolve to one training are one. Of each, its Dice by case, its curve (share of its iterations, pseudo Dice,
seconds) and what its training loop cost. Searches pay in the CPU seconds that its own processes used: of a machine that
others share, wall time tells more of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.fronts.stops import history_of
from study.common.errors import MissingDataError
from study.common.files import read_json
from study.common.serialize import record_to_json
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import Curriculum, resolve
from study.curriculum.schemes import named_axes
from study.search.document import read_yaml
from study.search.space import Point
from study.store.costs import bill
from study.store.ledger import Ledger
from study.store.records import TRAINING_PHASES
from study.store.trial_folder import TrialFolder

SPACE, STORED = (Path(__file__).with_name(f"grid.{ending}") for ending in ("yaml", "json"))
_AXES = ("min_patch", "stages", "batch_growth", "budget")


@dataclass(frozen=True)
class StoredGrid:
    """A stored grid; the trials in the order of its points."""

    content: dict[str, Any]

    @property
    def axes(self) -> dict[str, Any]:
        """Curriculum axes with their values, as a space file has them."""
        return dict(self.content["axes"])

    @cached_property
    def points(self) -> list[Point]:
        """One for each training."""
        return [trial["point"] for trial in self.content["trials"]]

    @property
    def dice(self) -> list[float]:
        """Of each training."""
        return [trial["past"]["curve"]["dice"] for trial in self.content["trials"]]

    @property
    def own_cpu_seconds(self) -> list[float]:
        """Of each training loop."""
        return [trial["own_cpu_seconds"] for trial in self.content["trials"]]

    def curriculum_of(self, point: Point) -> Curriculum:
        """The stage table of a point."""
        values: dict[str, Any] = {name.removeprefix("curriculum."): value for name, value in point.items()}
        return resolve(Geometry(**self.content["geometry"]), named_axes("pgps", **values), **self.content["length"])


def load(path: Path = STORED) -> StoredGrid:
    """A stored grid. Raises MissingDataError where there is none."""
    try:
        return StoredGrid(read_json(path))
    except (OSError, ValueError) as error:
        raise MissingDataError(f"no stored grid at {path} ({error}); see {__file__}") from None


def stored(ledger: Ledger) -> dict[str, Any]:
    """What is kept of a finished study of the grid."""
    document = read_yaml(SPACE)
    pasts = {past.curve.trial_id: past for past in history_of(ledger)}
    found: dict[str, Point] = {}
    for point in ledger.points():
        found.setdefault(point["trial_ids"][0], point["point"])
    folders = [ledger.trial(trial_id) for trial_id in found]
    spec = folders[0].spec()
    header = folders[0].attempts()[-1]
    return {
        "made": {"cpu": header.cpu_name, "cores": header.cpus_of_node, "versions": dict(header.versions)},
        "axes": {name: document["curriculum"][name] for name in _AXES},
        "geometry": record_to_json(spec.curriculum.geometry),
        "length": {name: document["training"][name] for name in ("epochs", "iterations_per_epoch")},
        "trials": [
            {"point": point, "past": pasts[folder.trial_id].to_json(), **_reached(folder)}
            for folder, point in zip(folders, found.values(), strict=True)
        ],
    }


def _reached(folder: TrialFolder) -> dict[str, Any]:
    result, intervals = folder.result(), folder.cost_intervals()
    assert result is not None
    training = bill(folder.attempts(), intervals).training
    own = [one.use.own_cpu_seconds for one in intervals if one.phase in TRAINING_PHASES and one.use is not None]
    return {
        "dice_per_case": dict(result.dice_per_case),
        "own_cpu_seconds": sum(own),
        "runtime_seconds": training.seconds,
        "energy_kwh": training.energy_kwh,
        "co2_kg": training.co2_kg,
    }


def main(arguments: Sequence[str]) -> None:
    """Write the stored grid of the study named."""
    text = json.dumps(stored(Ledger.open(Path(arguments[0]))), separators=(",", ":"))
    # A trial a line.
    STORED.write_text(text.replace('{"point"', '\n{"point"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
