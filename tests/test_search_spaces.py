"""The search spaces that come with the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from examples import BRAIN, HIPPOCAMPUS
from searching import GEOMETRIES, plan_of

from study.curriculum.chain import Geometry
from study.nnunet.plans import NetworkPlan
from study.search.document import BLOCKS, SETTINGS, SpaceDocument, load_space
from study.search.space import SearchSpace
from study.search.trials import specs
from study.store.specification import TrainingSettings, TrialSpec

# --------------------------------------------------------------------------------------------------- the spaces we ship

FOLDER = Path(__file__).resolve().parents[1] / "search_spaces"
PATHS = sorted(FOLDER.glob("*.yaml"))


class RankedData:
    """What a space finds of data that is not there: a plan of the geometry, and the ranking of 24 training cases."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry

    def __call__(self, dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        return plan_of(self._geometry, plans=plans, configuration=configuration), f"split-{fold}"

    def ranked(self, dataset: int | str, fold: int, metric: str) -> tuple[str, ...]:
        return tuple(f"case_{fold}_{number:02d}" for number in range(24))


def shipped(name: str, geometry: Geometry = HIPPOCAMPUS, **changes: Any) -> tuple[SearchSpace, list[TrialSpec]]:
    """A space and the first trial of each of its points; of Optuna's, of the corners."""
    space = load_space(FOLDER / f"{name}.yaml").with_overrides(**changes)
    if not space.datasets:
        space = space.with_overrides(dataset=4)
    if space.method.points:
        points = list(space.points())
    else:
        ends = [(domain.probes()[0], domain.probes()[-1]) for domain in space.searched.values()]
        points = [dict(zip(space.searched, corner, strict=True)) for corner in zip(*ends, strict=True)]
    return space, [specs(space, point, RankedData(geometry))[0] for point in points]


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=["brain", "lung", "hippocampus"])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_point_resolves_on_every_geometry(path: Path, geometry: Geometry) -> None:
    # The number of iterations is not at issue here, and drawing a quarter of a million sizes takes a while.
    space, made = shipped(path.stem, geometry, iterations_per_epoch=10)
    assert space.name == path.stem
    for spec in made:
        assert spec.curriculum.stages[-1].patch_size == geometry.patch_size
        assert spec.curriculum.voxel_share > 0


def test_the_demo_is_six_cheap_trials_that_differ() -> None:
    space, made = shipped("smoke")
    assert len(made) == len({spec.trial_id for spec in made}) == 6
    training = made[0].training
    assert training.epochs * training.iterations_per_epoch <= 500
    assert not training.test_time_mirroring
    assert space.resources.gpus == 0


def test_the_search_has_the_four_axes() -> None:
    assert list(shipped("pgps")[0].searched) == [
        f"curriculum.{name}" for name in ("min_patch", "stages", "batch_growth", "budget")
    ]


@pytest.mark.parametrize(("name", "points", "datasets"), [("paper_lung", 12, (6,)), ("paper_msd", 30, range(1, 11))])
def test_the_papers_spaces_are_reference_runs(name: str, points: int, datasets: range | tuple[int]) -> None:
    space, made = shipped(name, BRAIN)
    assert (len(made), space.datasets, space.folds) == (points, tuple(datasets), (0, 1, 2, 3, 4))
    for point in space.points():
        settings = space.settings(point)
        assert (settings.training, settings.axes.allocation) == (TrainingSettings(), "reference")
    if name == "paper_msd":
        shares = {spec.scheme: round(100 * spec.curriculum.voxel_share, 2) for spec in made}
        assert shares == {"cps": 100.0, "pgps": 38.08, "pgps+": 51.78}


def test_the_posters_space_trains_once_to_its_highest_threshold() -> None:
    _, made = shipped("paper_pdl", iterations_per_epoch=10)
    assert all(spec.curriculum.is_constant and spec.training.stop_at_dice == 0.95 for spec in made)
    found = [spec.data and (len(spec.data.cases), spec.data.until_iteration) for spec in made]
    assert found == [None, (6, 100), (12, 100)]


def test_the_two_curricula_are_combined_in_every_way() -> None:
    _, made = shipped("pdl_pgps", iterations_per_epoch=10)
    seen = {(spec.scheme, len(spec.data.cases) if spec.data else 24) for spec in made}
    assert seen == {(scheme, cases) for scheme in ("cps", "pgps", "rpss") for cases in (6, 12, 24)}
    assert len({spec.trial_id for spec in made}) == 9


def test_the_readme_documents_every_key_and_file_and_names_no_other() -> None:
    text = (FOLDER / "README.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    blocks = {key for block in BLOCKS.values() for key in block.model_fields}
    keys = {*SpaceDocument.model_fields, *blocks, *(key for legal in SETTINGS.values() for key in legal)}
    sections = {*BLOCKS, *SETTINGS}
    assert documented == keys - sections
    assert all(re.search(rf"^`{section}`: ", text, flags=re.MULTILINE) for section in sections)
    assert all(f"| `{path.name}` |" in text for path in PATHS)
