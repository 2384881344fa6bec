"""The shipped search spaces load, resolve on the papers' geometries, and are what their README says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from study.curriculum.chain import Geometry
from study.nnunet.plans import NetworkPlan
from study.search.document import BLOCKS, SETTINGS, SpaceDocument, load_space
from study.search.space import SearchSpace
from study.search.trials import specs
from study.store.specification import TrainingSettings

FOLDER = Path(__file__).resolve().parents[1] / "search_spaces"
PATHS = sorted(FOLDER.glob("*.yaml"))
GEOMETRIES = {
    "brain": Geometry(patch_size=(128, 128, 128), divisors=(32, 32, 32), batch_size=2),
    "lung": Geometry(patch_size=(80, 192, 160), divisors=(16, 32, 32), batch_size=2),
    "hippocampus": Geometry(patch_size=(40, 56, 40), divisors=(8, 8, 8), batch_size=9),
}


@dataclass(frozen=True)
class RankedData:
    """What a space finds of data that is not there: any plan of a geometry, and the ranking of 24 training cases."""

    geometry: Geometry

    def __call__(self, dataset: int | str, plans: str | None, configuration: str, fold: int) -> tuple[NetworkPlan, str]:
        plan = NetworkPlan(
            dataset=f"Dataset{dataset:03d}_X",
            plans=plans or "nnUNetPlans",
            configuration=configuration,
            geometry=self.geometry,
            data_identifier="x",
            previous_stage=None,
            sha256="p" * 64,
        )
        return plan, f"split-{fold}"

    def ranked(self, dataset: int | str, fold: int, metric: str) -> tuple[str, ...]:
        return tuple(f"case_{fold}_{number:02d}" for number in range(24))


def lookup_of(geometry: Geometry) -> RankedData:
    return RankedData(geometry)


def shipped(name: str) -> SearchSpace:
    return load_space(FOLDER / f"{name}.yaml")


def test_the_spaces_that_other_parts_name_are_there() -> None:
    assert {path.stem for path in PATHS} >= {"smoke", "pgps", "paper_lung", "paper_msd"}
    assert all(load_space(path).name == path.stem for path in PATHS)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_point_resolves_on_every_geometry(path: Path, geometry: Geometry) -> None:
    # The number of iterations is not at issue here, and drawing a quarter of a million sizes takes a while.
    space = load_space(path).with_overrides(iterations_per_epoch=10)
    if not space.datasets:
        space = space.with_overrides(dataset=4)
    if space.searcher != "optuna":
        points = list(space.points())
    else:
        ends = [[domain.probes()[0], domain.probes()[-1]] for domain in space.searched.values()]
        points = [dict(zip(space.searched, corner, strict=True)) for corner in zip(*ends, strict=True)]
    for point in points:
        for made in specs(space, point, lookup_of(geometry)):
            sizes = [stage.patch_size for stage in made.curriculum.stages]
            assert sizes[-1] == geometry.patch_size
            assert made.curriculum.voxel_share > 0


def test_the_demo_is_six_cheap_trials_that_differ() -> None:
    space = shipped("smoke")
    made = [specs(space, point, lookup_of(GEOMETRIES["hippocampus"])) for point in space.points()]
    ids = {spec.trial_id for group in made for spec in group}
    assert len(made) == len(ids) == 6
    training = made[0][0].training
    assert training.epochs * training.iterations_per_epoch <= 500
    assert not training.test_time_mirroring
    assert space.resources.gpus == 0


def test_the_search_has_the_four_axes() -> None:
    assert set(shipped("pgps").searched) == {
        "curriculum.min_patch",
        "curriculum.stages",
        "curriculum.batch_growth",
        "curriculum.budget",
    }


@pytest.mark.parametrize(("name", "points", "datasets"), [("paper_lung", 12, (6,)), ("paper_msd", 30, range(1, 11))])
def test_the_papers_spaces_are_reference_runs(name: str, points: int, datasets: range | tuple[int]) -> None:
    space = shipped(name)
    assert len(list(space.points())) == points
    assert space.datasets == tuple(datasets)
    assert space.folds == (0, 1, 2, 3, 4)
    for point in space.points():
        settings = space.settings(point)
        assert settings.training == TrainingSettings()
        assert settings.axes.allocation == "reference"


def test_the_posters_space_trains_once_to_its_highest_threshold() -> None:
    space = shipped("paper_pdl").with_overrides(dataset=4, iterations_per_epoch=10)
    made = [specs(space, point, lookup_of(GEOMETRIES["hippocampus"]))[0] for point in space.points()]
    assert all(spec.curriculum.is_constant and spec.training.stop_at_dice == 0.95 for spec in made)
    assert [spec.data and (len(spec.data.cases), spec.data.until_iteration) for spec in made] == [
        None,
        (6, 100),
        (12, 100),
    ]


def test_the_two_curricula_are_combined_in_every_way() -> None:
    space = shipped("pdl_pgps").with_overrides(dataset=4, iterations_per_epoch=10)
    made = [specs(space, point, lookup_of(GEOMETRIES["hippocampus"]))[0] for point in space.points()]
    seen = {(spec.scheme, len(spec.data.cases) if spec.data else 24) for spec in made}
    assert seen == {(scheme, cases) for scheme in ("cps", "pgps", "rpss") for cases in (6, 12, 24)}
    assert len({spec.trial_id for spec in made}) == 9


def test_the_papers_voxel_shares_come_out_of_the_space() -> None:
    space = shipped("paper_msd")
    shares = {
        settings.scheme: round(100 * made.curriculum.voxel_share, 2)
        for point in space.points()
        if (settings := space.settings(point)).dataset == 1
        for made in specs(space, point, lookup_of(GEOMETRIES["brain"]))[:1]
    }
    assert shares == {"cps": 100.0, "pgps": 38.08, "pgps+": 51.78}


def test_the_readme_documents_every_key_and_names_no_other() -> None:
    text = (FOLDER / "README.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE))
    blocks = {key for block in BLOCKS.values() for key in block.model_fields}
    keys = {*SpaceDocument.model_fields, *blocks, *(key for legal in SETTINGS.values() for key in legal)}
    sections = {*BLOCKS, *SETTINGS}
    assert documented == keys - sections
    assert all(re.search(rf"^`{section}`: ", text, flags=re.MULTILINE) for section in sections)


def test_the_readme_lists_every_file() -> None:
    text = (FOLDER / "README.md").read_text()
    assert all(f"| `{path.name}` |" in text for path in PATHS)
