"""What a page begins with: true for every kind of study. And the figures behind it, on data that are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from browser import chromium, opened
from ledgers import complete, finish_trial, make_header, make_result, make_spec, make_study, start_trial
from reports import only

from analysis.comparison.compare import compare
from analysis.effects.curves import incumbents
from analysis.effects.failures import failures
from analysis.figures.style import NARROW, WIDE
from analysis.fronts.front import pareto_front
from analysis.page.answer import Answer, answers
from analysis.page.report import page_of, write_report
from analysis.page.sections import fronts
from analysis.papers.tables import paired_cases
from analysis.statistics.study_results import StudyResults, gather
from study.store.ledger import Ledger


def answer_of(root: Path) -> tuple[Answer, str]:
    [one] = answers(gather([root]))
    return one, " ".join(one.sentences)


def study_of(root: Path, *trials: tuple[str, float, float], seeds: int = 1, **settings: object) -> Path:
    """Of scheme, Dice and seconds, sixty cases each."""
    study = Ledger.create(root)
    for seed in range(seeds):
        for scheme, dice, seconds in trials:
            spec = make_spec(scheme, seed=seed)
            finish_trial(study, spec, dice=dice + 0.0001 * seed, seconds=seconds, n_cases=60, **settings)
    return root


@pytest.mark.parametrize(
    ("dice", "seeds", "words"),
    [
        (0.8001, 1, "over 60 cases: not told apart."),
        (0.82, 1, "over 60 cases: higher in these trainings."),
        (0.78, 1, "over 60 cases: lower in these trainings."),
        (0.82, 3, "over 60 cases: higher."),
    ],
)
def test_a_scheme_is_compared_with_constant_patch_size(tmp_path: Path, dice: float, seeds: int, words: str) -> None:
    root = study_of(tmp_path / "s", ("cps", 0.8, 100.0), ("pgps", dice, 40.0), seeds=seeds)
    one, told = answer_of(root)
    row = compare(gather([root]), against=["pgps"]).rows.iloc[0]
    low, high = (f"{row[name]:.3f}".replace("-", "−") for name in ("difference_low", "difference_high"))
    assert told.startswith(f"PGPS: Dice {row['against_dice']:.3f} for 40 % of CPS' training time; difference ")
    if high != low and float(row["difference_high"] - row["difference_low"]) >= 0.002:
        assert f"[{low}, {high}]" in told
    assert words in told
    assert ("one seed" in told) == (seeds == 1) and "one fold" in told
    assert one.advice.startswith(f"{'PGPS' if dice > 0.8 else 'CPS'}: ")
    assert one.commands[0][1].startswith("python -m study trial --out recommended --dataset Dataset004_Hippocampus")


def failed(study: Ledger) -> None:
    start_trial(study, make_spec(), seconds=3).fail(attempt=0, reason="out of <memory>")


def one_point(study: Ledger) -> None:
    finish_trial(study, make_spec(), dice=0.8, seconds=30, n_cases=3)


def baseline_alone(study: Ledger) -> None:
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=30, n_cases=3)


def baseline_best(study: Ledger) -> None:
    for scheme, dice, seconds in (("cps", 0.9, 30), ("pgps", 0.7, 40)):
        finish_trial(study, make_spec(scheme), dice=dice, seconds=seconds, n_cases=3)


def other_folds(study: Ledger) -> None:
    finish_trial(study, make_spec("cps", fold=0), dice=0.9, seconds=90)
    finish_trial(study, make_spec("pgps", fold=1), dice=0.8, seconds=30)


def other_machine(study: Ledger) -> None:
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=90, n_cases=3, cpu_name="Slow")
    finish_trial(study, make_spec("pgps"), dice=0.9, seconds=30, n_cases=3, cpu_name="Fast")


def on_the_way(study: Ledger) -> None:
    one_point(study)
    start_trial(study, make_spec("cps"), seconds=3)


def unmeasured(study: Ledger) -> None:
    finish_trial(study, make_spec(), dice=0.8, seconds=30, measured=False)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda study: None, ["The study has no trials yet"]),
        (failed, ["No trial has finished", "1 trial: 1 failed", "out of <memory>"]),
        (one_point, ["PGPS: Dice 0.800", "for 30.0 s a training; no finished trial of CPS", "3 validation cases"]),
        (baseline_alone, ["CPS: Dice 0.800", "no other configuration has finished"]),
        (baseline_best, ["PGPS: Dice 0.700 for 133 % of CPS' training time; difference −0.200", "lower"]),
        (other_folds, ["PGPS: Dice 0.800; CPS 0.900, on other folds: not comparable"]),
        (other_machine, ["of CPS' voxels; difference +0.100", "times are of different hardware"]),
        (on_the_way, ["Not certain: 1 trial still to finish"]),
        (unmeasured, ["PGPS: Dice 0.800 for 30.0 s"]),
    ],
)
def test_the_first_sentences_are_true_of_every_kind_of_study(
    tmp_path: Path, fill: Callable[[Ledger], None], expected: list[str]
) -> None:
    study = Ledger.create(tmp_path / "s")
    fill(study)
    one, told = answer_of(study.root)
    assert [words for words in expected if words not in told] == []
    assert bool(one.commands) == bool(one.advice) == ("Dice 0." in told)


def test_several_datasets_have_an_answer_each_and_names_of_any_script_stand_as_they_are(tmp_path: Path) -> None:
    names = ("Dataset001_قلب", "Dataset002_" + "long_" * 20)
    study = Ledger.create(tmp_path / "دراسة")
    for name in names:
        for scheme, seconds in (("cps", 90), ("pgps", 30)):
            finish_trial(study, make_spec(scheme, dataset=name), dice=0.8, seconds=seconds, n_cases=3)
    results = gather([study.root])
    assert [one.dataset for one in answers(results)] == list(names)
    page = page_of(results, [only(fronts, most=2)])
    assert all(f"<h2><bdi>{name}</bdi></h2>" in page for name in names) and "<bdi>Study report: دراسة</bdi>" in page
    assert 'data-choice="Dataset001_قلب: training time"' in page
    assert 'href="figures/' not in page and 'href="data/' not in page


@pytest.mark.parametrize("size", [(1280, 800), pytest.param((390, 844), marks=pytest.mark.cluster)])
def test_the_answer_the_front_and_the_command_are_on_the_first_screen(tmp_path: Path, size: tuple[int, int]) -> None:
    root = tmp_path / "hippo"
    study = make_study(root, folds=(0, 1), budgets=(1.0, 0.5), n_cases=8)
    study.add(make_spec("pgps", budget=0.25)).begin_attempt(make_header())
    report = write_report([root], tmp_path / "report", sections=[only(fronts, most=2)])
    assert "No file" not in report.page.read_text()
    with chromium() as browser, opened(browser, report.page, width=size[0], height=size[1]) as page:
        for place in (".answer", ".advice pre", "#cost", "#pareto_dice_runtime figure"):
            box = page.locator(place).first.bounding_box()
            assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size[1], place
        assert page.evaluate("document.documentElement.scrollHeight") <= 8000
        # One cost at a time; all of them and everything folded on paper.
        assert page.locator("#pareto_dice_voxels").is_hidden()
        page.locator("#cost").select_option("pareto_dice_voxels")
        assert page.locator("#pareto_dice_voxels").is_visible() and page.locator("#pareto_dice_runtime").is_hidden()
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        for place in ("#pareto_dice_runtime", "#pareto_dice_voxels", "#rests dl", "#trials table"):
            assert page.locator(place).is_visible()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    return gather([make_study(tmp_path_factory.mktemp("studies") / "hippo", folds=(0, 1), n_cases=6).root])


def test_cases_are_paired_by_name(results: StudyResults) -> None:
    compared = compare(results)
    found = paired_cases(results, compared, results.datasets[0])
    assert len(found) == 5 * 12 and found["difference"].notna().all()
    rows = compared.rows.set_index("against_method")
    means = found.groupby("method")["difference"].mean()
    assert means.to_dict() == pytest.approx(rows["dice_difference"].to_dict())


def test_hypervolume_grows_with_the_hours_of_all_trials(results: StudyResults) -> None:
    found = incumbents(results, pareto_front(results.points, ("dice", "runtime_seconds")))
    assert len(found) == 8 and (np.diff(found["share"]) >= 0).all() and 0 < found["share"].iloc[-1] <= 1
    assert found["hours"].iloc[-1] == pytest.approx(results.tables.trials["total_seconds"].sum() / 3600)


def write_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


def with_images(root: Path, *, cases: int = 3) -> StudyResults:
    """A study whose only trial says where its data are; in case 0 a slice is missed."""
    study, spec = Ledger.create(root / "study"), make_spec()
    folder = start_trial(study, spec, seconds=30, preprocessed=str(root / "data" / "nnUNet_preprocessed"))
    complete(folder, make_result(spec, 0.8, n_cases=cases))
    raw = root / "data" / "nnUNet_raw" / spec.dataset
    for number in range(cases):
        name, label = f"case_0_{number:03d}", np.zeros((9, 30, 40), dtype=np.uint8)
        label[2:7, 10:20, 10:20] = 1
        found = label.copy()
        found[4] = 0
        write_image(raw / "imagesTr" / f"{name}_0000.nii.gz", label.astype(np.float32))
        write_image(raw / "labelsTr" / f"{name}.nii.gz", label)
        write_image(folder.results_path / spec.dataset / "x" / "fold_0" / "validation" / f"{name}.nii.gz", found)
    return gather([study.root])


def test_the_worst_cases_show_where_label_and_prediction_differ(tmp_path: Path) -> None:
    found = with_images(tmp_path)
    item, why = failures(found, found.points.iloc[0])
    assert why == "" and item is not None and item.draw is not None
    cases = found.tables.cases[found.tables.cases["label"] == "foreground"].sort_values("dice")
    assert [row[0] for row in item.table.rows] == cases["case"].tolist()
    for layout, panels in ((WIDE, 27), (NARROW, 27)):
        shown = [axes.images[0].get_array() for axes in item.draw(layout).axes]
        assert len(shown) == panels
        for plain, label, prediction in zip(shown[::3], shown[1::3], shown[2::3], strict=True):
            # The slice that was missed: painted in the label alone.
            assert (label != plain).any() and (prediction == plain).all()


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: next(root.rglob(name)).unlink()


def other_shape(root: Path) -> None:
    for path in root.rglob("labelsTr/*.nii.gz"):
        write_image(path, np.zeros((2, 3, 4), dtype=np.uint8))


def no_image(root: Path) -> None:
    for path in root.rglob("*_0000.nii.gz"):
        path.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (remove("case_0_000_0000.nii.gz"), "no image case_0_000_0000"),
        (remove("spec.json"), "is not in the folders that were read"),
        (other_shape, "differ in shape"),
        (no_image, "No pictures of the worst cases: "),
    ],
)
def test_without_a_file_there_is_a_table_and_a_sentence(
    tmp_path: Path, break_it: Callable[[Path], None], words: str
) -> None:
    found = with_images(tmp_path)
    break_it(tmp_path)
    item, why = failures(found, found.points.iloc[0])
    assert words in why and item is not None and item.draw is None and len(item.table.rows) == 3


def test_images_of_no_extent_and_several_channels_are_shown(tmp_path: Path) -> None:
    found = with_images(tmp_path, cases=1)
    raw = next(tmp_path.rglob("labelsTr")).parent
    empty = np.zeros((3, 30, 40), dtype=np.uint8)
    for path in (next(raw.rglob("labelsTr/*")), next(tmp_path.rglob("validation/*"))):
        write_image(path, empty)
    vector = SimpleITK.GetImageFromArray(np.zeros((3, 30, 40, 3), dtype=np.float32), isVector=True)
    SimpleITK.WriteImage(vector, str(next(raw.rglob("imagesTr/*"))))
    item, why = failures(found, found.points.iloc[0])
    assert why == "" and item is not None and len(item.draw(WIDE).axes) == 9
