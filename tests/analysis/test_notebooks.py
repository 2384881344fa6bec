"""The notebooks: converted as `make notebooks` does, executed on a made-up study, and what they show is the study's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from ledgers import finish_trial, make_spec, make_study
from nbclient import NotebookClient

from analysis.fronts.front import pareto_front
from analysis.statistics.study_results import gather
from analysis.tables.sources import Grid
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import named_axes
from study.nnunet.phantom import write_phantom_dataset
from study.store.ledger import Ledger

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "analysis" / "notebooks"
NAMES = ("first_study", "pareto", "compare_studies", "paper_tables", "your_own_plot", "your_own_scheme")
OWN = named_axes("pgps", min_patch=0.25, stages=4, batch_growth=0.5, growth=1.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    root = tmp_path_factory.mktemp("notebooks") / "hippo"
    return make_study(root, folds=(0, 1), budgets=(0.5, 1.0), n_cases=4, curve=True)


class Executed:
    """A notebook after it ran."""

    def __init__(self, name: str, *studies: Path) -> None:
        notebook = jupytext.read(SOURCES / f"{name}.py")
        nbformat.validate(notebook)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPS_STUDIES", os.pathsep.join(map(str, studies)))
            NotebookClient(notebook, timeout=60, kernel_name="python3").execute(cwd=str(REPOSITORY))
        self.outputs: list[Any] = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        printed = [output.get("text", "") for output in self.outputs]
        self.text = "\n".join([*printed, *self.data("text/plain"), *self.data("text/markdown")])
        self.pictures = len(self.data("image/png"))
        self.warnings = [output["text"] for output in self.outputs if output.get("name") == "stderr"]

    def data(self, kind: str) -> list[str]:
        return [output["data"][kind] for output in self.outputs if kind in output.get("data", {})]


def test_pareto_shows_the_front_of_the_ledger_and_its_carbon_on_another_grid(study: Ledger) -> None:
    notebook = Executed("pareto", study.root)
    points = gather([study.root]).points
    cheapest = points[points["dice"] >= points["dice"].max() - 0.02].sort_values("runtime_seconds").iloc[0]
    swedish = gather([study.root], grid=Grid(country="SWE")).points["co2_kg"].iloc[0] * 1000
    for expected in (
        "32 trials: 32 finished",
        *(f"{dice:.3f}" for dice in pareto_front(points, ["dice", "runtime_seconds"]).best["dice"]),
        f"{cheapest['summary']}, Dice {cheapest['dice']:.4f}",
        f"{swedish:.6f}"[:7],
    ):
        assert expected in notebook.text
    assert (notebook.pictures, notebook.warnings) == (1, [])


def test_compare_studies_tests_every_scheme_and_sets_studies_side_by_side(study: Ledger, tmp_path: Path) -> None:
    other = make_study(tmp_path / "again", folds=(0,), n_cases=4)
    notebook = Executed("compare_studies", study.root, other.root)
    for expected in (str(study.root), str(other.root), "PGPS+", "Wilcoxon"):
        assert expected in notebook.text
    assert notebook.pictures == 1


def test_compare_studies_takes_one_alone_without_cps(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "alone")
    finish_trial(study, make_spec("pgps"), dice=0.8, seconds=10.0)
    assert "Nothing to compare with CPS." in Executed("compare_studies", study.root).text


def test_paper_tables_has_our_numbers_and_the_published_ones(study: Ledger) -> None:
    notebook = Executed("paper_tables", study.root)
    assert notebook.pictures >= 2
    # Published Dice of PGPS on the hippocampus, beside ours at full budget.
    for expected in (r"\toprule", "arXiv", "0.8911", "0.8130"):
        assert expected in notebook.text


def test_first_study_shows_front_stages_and_what_two_models_predict(tmp_path: Path) -> None:
    study = make_study(tmp_path / "demo", folds=(0,), n_cases=4)
    raw = write_phantom_dataset(study.root / "data" / "nnUNet_raw", name="Dataset004_Hippocampus", cases=1)
    (label,) = (raw / "labelsTr").iterdir()
    for trial in study.trials():
        made = trial.results_path / "Dataset004_Hippocampus" / "Trainer" / "fold_0" / "validation"
        made.mkdir(parents=True)
        shutil.copy(label, made)
    notebook = Executed("first_study", study.root)
    assert "No predictions here" not in notebook.text
    assert (notebook.pictures, notebook.warnings) == (3, [])
    assert f"{gather([study.root]).points['dice'].max():.3f}" in notebook.text


def test_first_study_goes_without_predictions(study: Ledger) -> None:
    notebook = Executed("first_study", study.root)
    assert "No predictions here" in notebook.text and notebook.pictures == 2


def test_your_own_plot_is_drawn_twice_and_saved(study: Ledger) -> None:
    notebook = Executed("your_own_plot", study.root)
    assert (notebook.pictures, notebook.warnings) == (2, [])
    assert re.search(r"dice_voxels.pdf has \d+,\d+ bytes", notebook.text)


def test_your_own_scheme_is_a_table_a_picture_and_a_space_that_is_read() -> None:
    notebook = Executed("your_own_scheme")
    assert (notebook.pictures, notebook.warnings) == (1, [])
    mine = resolve(Geometry(patch_size=(48, 48, 48), divisors=(8, 8, 8), batch_size=2), OWN)
    assert f"mine: {mine.voxel_share:.1%}" in notebook.text
    assert "48×48×48" in notebook.text and "growth: 1.0" in notebook.text


def test_there_are_no_others() -> None:
    assert {path.stem for path in SOURCES.glob("*.py")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_they_become_what_jupyter_opens(name: str, tmp_path: Path) -> None:
    made = tmp_path / f"{name}.ipynb"
    command = [
        sys.executable,
        "-m",
        "jupytext",
        "--quiet",
        "--to",
        "ipynb",
        "-o",
        str(made),
        str(SOURCES / f"{name}.py"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    notebook = nbformat.read(made, as_version=4)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
