"""The search spaces that come with the project, and from a point of a space to the specifications of its trials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from examples import BRAIN, HIPPOCAMPUS
from searching import GEOMETRIES, plan_of
from searching import paper_lookup as lookup

from study.common.errors import InvalidInputError
from study.curriculum.chain import Geometry
from study.curriculum.schemes import Axes, named_axes
from study.nnunet.plans import NetworkPlan
from study.search.document import BLOCKS, SETTINGS, SpaceDocument, load_space, space_from
from study.search.space import SearchSpace
from study.search.trials import make_spec, specs
from study.store.specification import TrainingSettings, TrialSpec

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


def document(**keys: Any) -> dict[str, Any]:
    return {"name": "test", "searcher": "grid", **keys}


def spec(scheme: str, *, fold: int = 0, seed: int = 0, axes: Axes | None = None, **training: Any) -> TrialSpec:
    return make_spec(
        plan=plan_of(HIPPOCAMPUS),
        split_sha256="s" * 64,
        fold=fold,
        seed=seed,
        scheme=scheme,
        axes=axes or named_axes(scheme),
        training=TrainingSettings(**{"epochs": 10, "iterations_per_epoch": 50, **training}),
    )


def test_a_point_is_one_trial_per_fold_and_seed() -> None:
    written = document(datasets=[4], folds=[0, 3], seeds=[0, 5], curriculum={"scheme": ["cps", "pgps+"], "budget": 0.5})
    space = space_from({**written, "training": {"epochs": 4, "iterations_per_epoch": 10, "optimizer": "adamw"}})
    made = specs(space, {"curriculum.scheme": "pgps+"}, lookup)
    assert [(spec.fold, spec.seed) for spec in made] == [(0, 0), (0, 5), (3, 0), (3, 5)]
    assert [spec.split_sha256 for spec in made] == ["split-0", "split-0", "split-3", "split-3"]
    assert {(spec.scheme, spec.iterations_per_epoch, spec.training.optimizer) for spec in made} == {
        ("pgps+", 5, "adamw")
    }
    assert len({spec.trial_id for spec in made}) == 4


def test_dataset_plans_and_configuration_reach_the_lookup() -> None:
    space = space_from(document(datasets=[1, 4], plans="otherPlans", configuration="3d_lowres"))
    made = [specs(space, point, lookup)[0] for point in space.points()]
    assert [(one.dataset, one.plans, one.configuration) for one in made] == [
        ("Dataset001_X", "otherPlans", "3d_lowres"),
        ("Dataset004_X", "otherPlans", "3d_lowres"),
    ]
    assert space.datasets == (1, 4)


@pytest.mark.parametrize("point", [{}, {"curriculum.budget": 1.0, "x": 1}, {"curriculum.stages": 1}])
def test_a_point_of_another_space_is_refused(point: dict[str, Any]) -> None:
    space = space_from(document(datasets=[4], curriculum={"budget": [0.5, 1.0]}))
    with pytest.raises(InvalidInputError, match="point: received"):
        specs(space, point, lookup)
