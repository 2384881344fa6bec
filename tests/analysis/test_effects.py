"""The section of effects: costs that add up to the ledger's, curves that are its means, figures for any study."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ledgers import (
    FINAL_VALIDATION_SECONDS,
    SETUP_SECONDS,
    complete,
    finish_trial,
    make_header,
    make_interval,
    make_result,
    make_spec,
    make_study,
    start_trial,
)
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.effects.costs import AMOUNTS, cost_parts
from analysis.effects.curves import MOST_CURVES, choose_points, curves_of
from analysis.figures.exhibits import Exhibit, Section
from analysis.figures.images import as_png, as_svg, inline_svg
from analysis.figures.style import FILE, NARROW, PAINTS, WIDE
from analysis.fronts.front import pareto_front
from analysis.page.effects import effects
from analysis.statistics.evidence import Evidence, evidence_of, gather
from study.store.ledger import Ledger
from study.store.readings import StagePart
from study.store.records import Phase
from study.store.specification import TrainingSettings

STEMS = ["importances", "slices", "parallel", "learning_curves", "costs", "costs_by_stage"]


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    root = tmp_path_factory.mktemp("why") / "hippo"
    return gather([make_study(root, folds=(0, 1), budgets=(0.5, 1.0), n_cases=4, curve=True).root])


@pytest.fixture(scope="module")
def whole(evidence: Evidence) -> Section:
    return effects(evidence)


def exhibit(section: Section, stem: str) -> Exhibit:
    [found] = [one for one in section.exhibits if one.stem == stem]
    return found


def words_in(figure: Figure) -> set[str]:
    FigureCanvasAgg(figure).draw()
    return {text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text()}


def test_a_whole_study_has_every_exhibit_with_words(whole: Section) -> None:
    assert [one.stem for one in whole.exhibits] == STEMS
    assert whole.missing == ()
    for one in whole.exhibits:
        assert one.heading and one.notes and (one.alt or one.draw is None)
        assert (one.data is None) == (one.table is None) or one.stem == "learning_curves"


@pytest.mark.parametrize("stem", STEMS[:-1])
@pytest.mark.parametrize("layout", [FILE, NARROW], ids=["file", "narrow"])
def test_figures_fit_and_are_legible_and_follow_the_page(whole: Section, stem: str, layout: object) -> None:
    one = exhibit(whole, stem)
    assert one.draw is not None
    figure = one.draw(layout)  # type: ignore[arg-type]
    FigureCanvasAgg(figure).draw()
    ink = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(ink.x0, ink.y0) >= 0 and ink.x1 <= width and ink.y1 <= height, ink
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 7.5
    svg = inline_svg(figure, prefix="x", alt=one.alt, css_class="wide")
    assert not [paint.light for paint in PAINTS if paint.light in svg]
    assert "#000000" not in svg


def test_the_chapter_is_the_same_every_time(evidence: Evidence, whole: Section) -> None:
    for first, second in zip(whole.exhibits, effects(evidence).exhibits, strict=True):
        assert (first.alt, list(first.notes), first.table) == (second.alt, list(second.notes), second.table)
        if first.stem in ("slices", "costs"):
            assert first.draw is not None and second.draw is not None
            assert as_svg(first.draw(NARROW)) == as_svg(second.draw(NARROW))


def test_costs_by_cause_are_those_of_the_ledger(evidence: Evidence) -> None:
    parts = cost_parts(evidence.tables.trials, evidence.tables.costs)
    rows = parts.causes.set_index(["group", "cause"])["seconds"]
    cps = 94.0 + 0.5  # the mean of two folds
    assert rows["CPS, 100% budget"].to_dict() == pytest.approx(
        {
            "setup": SETUP_SECONDS,
            "training": 0.9 * cps,
            "online_validation": 0.1 * cps,
            "final_validation": FINAL_VALIDATION_SECONDS,
            "waste": 0.0,
        }
    )
    totals = parts.causes.groupby("group")["co2_kg"].sum()
    trials = evidence.tables.trials
    whole = trials[(trials["method"] == "pgps") & (trials["budget"] == 0.5)]["total_co2_kg"].mean()
    assert totals["PGPS, 50% budget"] == pytest.approx(whole)
    assert parts.groups[:3] == ["CPS, 100% budget", "CPS, 50% budget", "PGPS, 100% budget"]


def test_waste_is_a_cause_of_its_own_and_never_counted_twice(tmp_path: Path) -> None:
    study, spec = Ledger.create(tmp_path / "s"), make_spec("cps")
    folder, end = study.add(spec), spec.curriculum.total_iterations
    folder.begin_attempt(make_header())
    folder.append_cost(make_interval(Phase.TRAINING, 40.0, start=0, stop=end // 2))
    folder.begin_attempt(make_header(1, resumed_from_iteration=0))
    folder.append_cost(make_interval(Phase.TRAINING, 90.0, attempt=1, start=0, stop=end))
    complete(folder, make_result(spec, 0.8), attempt=1, validation_seconds=7.0)
    found = gather([study.root])
    parts = cost_parts(found.tables.trials, found.tables.costs)
    seconds = parts.causes.set_index("cause")["seconds"]
    assert (seconds["waste"], seconds["training"], seconds["final_validation"]) == (40.0, 90.0, 7.0)
    assert seconds.sum() == found.tables.trials["total_seconds"].sum()
    one = exhibit(effects(found), "costs")
    assert any("lost to an interruption" in note for note in one.notes)
    assert one.draw is not None and "waste" in words_in(one.draw(FILE))


def test_costs_by_stage_add_up_to_the_training(tmp_path: Path) -> None:
    study, spec = Ledger.create(tmp_path / "s"), make_spec("pgps", stages=2)
    folder = study.add(spec)
    folder.begin_attempt(make_header())
    for number, stage in enumerate(spec.curriculum.stages):
        first = stage.first_iteration
        interval = make_interval(Phase.TRAINING, 10.0 + number, start=first, stop=first + stage.iterations)
        folder.append_cost(replace(interval, stage=number))
    complete(folder, make_result(spec, 0.8))
    found = gather([study.root])
    stages = cost_parts(found.tables.trials, found.tables.costs).stages
    assert stages["seconds"].tolist() == [10.0, 11.0]
    assert stages["iterations"].sum() == spec.curriculum.total_iterations
    sizes = ["×".join(map(str, stage.patch_size)) for stage in spec.curriculum.stages]
    assert stages["patch_size"].tolist() == sizes


def test_costs_of_random_order_are_by_stage_over_attempts_and_seeds(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    specs = [make_spec("rpss", seed=seed) for seed in (0, 1)]
    for spec in specs:
        folder, sizes, end = study.add(spec), spec.curriculum.stages, spec.curriculum.total_iterations
        # A stage takes as many seconds as it has iterations, times its number from 1; the last ten are trained twice.
        halves = [(0, 0, end // 2), (1, end // 2 - 10, end)]
        for attempt, start, stop in halves:
            drawn = Counter(map(spec.curriculum.stage_index, range(start, stop)))
            parts = [StagePart(stage=s, iterations=n, seconds=n * (s + 1.0)) for s, n in sorted(drawn.items())]
            folder.begin_attempt(make_header(attempt, resumed_from_iteration=start))
            whole = sum(part.seconds for part in parts)
            interval = make_interval(Phase.TRAINING, whole, attempt=attempt, start=start, stop=stop)
            folder.append_cost(replace(interval, stage=None, parts=tuple(parts)))
        complete(folder, make_result(spec, 0.8), attempt=1)
    found = gather([study.root])
    costs = found.tables.costs[found.tables.costs["phase"] == "training"]
    assert costs.groupby("stage")["seconds"].sum().tolist() == pytest.approx(
        [(stage + 1.0) * sum(costs.loc[costs["stage"] == stage, "iterations"].tolist()) for stage in range(len(sizes))]
    )
    assert costs["iterations"].sum() == 2 * (end + 10)
    assert costs["seconds"].sum() == pytest.approx(found.tables.trials["runtime_seconds"].sum())
    stages = cost_parts(found.tables.trials, found.tables.costs).stages
    assert stages["patch_size"].tolist() == ["×".join(map(str, stage.patch_size)) for stage in sizes]
    useful = (costs["seconds"] - costs["waste_seconds"]).sum() / 2
    assert stages["seconds"].sum() == pytest.approx(useful)


def test_curves_are_means_over_folds_at_the_same_epoch(evidence: Evidence) -> None:
    tables = evidence.tables
    front = pareto_front(evidence.points, ("dice", "runtime_seconds"))
    points = choose_points(front, tables.epochs)
    means = curves_of(points, tables.trials, tables.epochs)
    assert set(points["budget"]) == {1.0}
    assert points["method"].tolist()[:4] == ["cps", "pgps", "pgps+", "rpss"]
    assert len(points) <= MOST_CURVES
    cps = means[means["point_id"] == points["point_id"].iloc[0]]
    ids = tables.trials.loc[tables.trials["point_id"] == points["point_id"].iloc[0], "trial_id"]
    last = tables.epochs[tables.epochs["trial_id"].isin(ids) & (tables.epochs["epoch"] == 9)]
    assert cps["pseudo_dice"].iloc[-1] == pytest.approx(last["pseudo_dice"].mean())
    assert set(cps["n_trials"]) == {2}


def test_of_many_points_few_curves_are_drawn_and_named(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "s")
    for number in range(20):
        spec = make_spec("pgps", min_patch=0.3, stages=3, training=settings_with(rate=0.001 * (number + 1)))
        finish_trial(study, spec, dice=0.7 + 0.005 * number, seconds=30.0 + number, curve=True)
    one = exhibit(effects(gather([study.root])), "learning_curves")
    assert one.data is not None and one.data["point_id"].nunique() == MOST_CURVES
    assert all(summary.split(", ")[-1] in one.notes[0] for summary in set(one.data["summary"]))


def settings_with(*, rate: float) -> TrainingSettings:
    return TrainingSettings(optimizer="adamw", epochs=10, iterations_per_epoch=20, initial_learning_rate=rate)


def test_an_empty_study_has_a_sentence_and_no_figure(tmp_path: Path) -> None:
    section = effects(gather([Ledger.create(tmp_path / "empty").root]))
    assert section.exhibits == ()
    assert section.missing == ("Nothing can be explained yet: it takes a finished trial (no trials).",)


def test_failed_trials_alone_have_a_sentence(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "failed")
    start_trial(study, make_spec("cps"), seconds=3.0).fail(reason="it broke", attempt=0)
    [sentence] = effects(gather([study.root])).missing
    assert "1 trial: 1 failed" in sentence


def test_one_trial_has_its_curve_and_costs_and_says_what_the_rest_needs(tmp_path: Path) -> None:
    study = Ledger.create(tmp_path / "one")
    finish_trial(study, make_spec("cps"), dice=0.8, seconds=10.0, curve=True)
    section = effects(gather([study.root]))
    assert [one.stem for one in section.exhibits] == STEMS[3:]
    assert len(section.missing) == 2
    assert "at least 8 configurations" in section.missing[0] and "there is 1" in section.missing[0]
    draw_all(section)


def draw_all(section: Section) -> None:
    for one in section.exhibits:
        for layout in (WIDE, NARROW):
            if one.draw is not None:
                as_png(one.draw(layout), dots_per_inch=40)


def test_unmeasured_energy_is_left_out_and_said(tmp_path: Path) -> None:
    section = effects(gather([make_study(tmp_path / "dark", measured=False, curve=True).root]))
    one = exhibit(section, "costs")
    assert one.draw is not None and not any("CO₂" in word for word in words_in(one.draw(FILE)))
    assert any(sentence.startswith("CO₂ by cause") for sentence in section.missing)
    shares = exhibit(section, "importances").data
    assert shares is not None and "voxels" in set(shares["target"])
    assert one.table is not None and {row[-1] for row in one.table.rows} == {"–"}


def test_trials_without_epochs_have_no_curves(tmp_path: Path) -> None:
    section = effects(gather([make_study(tmp_path / "s").root]))
    assert "learning_curves" not in [one.stem for one in section.exhibits]
    assert any(sentence.startswith("Learning curves") for sentence in section.missing)


def test_unfinished_trials_are_named_and_not_averaged(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    start_trial(study, make_spec("cps", fold=3), seconds=1000.0)
    one = exhibit(effects(gather([study.root])), "costs")
    assert any("1 trial that did not finish" in note for note in one.notes)
    assert one.data is not None and one.data["seconds"].max() < 100


def test_datasets_are_kept_apart(tmp_path: Path) -> None:
    studies = [make_study(tmp_path / name, dataset=name, curve=True).root for name in ("Dataset001_A", "Dataset002_B")]
    section = effects(gather(studies))
    stems = [one.stem for one in section.exhibits]
    assert stems == [f"{stem}_{name}" for name in ("Dataset001_A", "Dataset002_B") for stem in STEMS]
    assert all("Dataset001_A" in one.heading for one in section.exhibits[:6])


def test_other_hardware_is_told(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    finish_trial(study, make_spec("pgps", stages=4), dice=0.8, seconds=3.0, cpu_name="Another CPU")
    section = effects(gather([study.root]))
    for stem in ("importances", "slices", "parallel", "costs"):
        assert any("different hardware" in note for note in exhibit(section, stem).notes), stem


def test_a_thousand_points_take_no_megabytes(evidence: Evidence) -> None:
    many = thousand(evidence)
    section = effects(many)
    sizes = {}
    for one in section.exhibits:
        if one.draw is not None:
            sizes[one.stem] = len(inline_svg(one.draw(WIDE), prefix="x", alt=one.alt, css_class="wide"))
    assert max(sizes.values()) < 1_200_000, sizes


def thousand(evidence: Evidence) -> Evidence:
    """The study's trials sixty-odd times over, each copy with settings and results of its own."""
    rng = np.random.default_rng(0)
    trials = evidence.tables.trials
    copies = []
    for number in range(1000 // len(trials) + 1):
        copy = trials.copy()
        copy["study"] = f"s{number}"
        copy["point_id"] = copy["trial_id"] + f"-{number}"
        copy["initial_learning_rate"] = 10 ** rng.uniform(-4, -1, len(copy))
        copy["budget"] = rng.uniform(0.1, 1, len(copy))
        copy["min_patch"] = rng.uniform(0, 1, len(copy))
        copy["dice"] = rng.uniform(0.5, 0.9, len(copy))
        copies.append(copy)
    tables = replace(evidence.tables, trials=pd.concat(copies, ignore_index=True))
    found = evidence_of(replace(tables, cases=tables.cases.head(0)))
    assert len(found.points) > 1000
    return found


def test_every_amount_is_there(evidence: Evidence) -> None:
    parts = cost_parts(evidence.tables.trials, evidence.tables.costs)
    assert parts.causes[list(AMOUNTS)].notna().all(axis=None)
