"""Late stopping: what a rung says, that it is said once, what becomes of a stopped trial, and hindsight."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import EPOCH, HEADER, complete, make_interval, make_spec
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState as OptunaState
from searching import GRID_SPACE, OPTUNA_SPACE, end, ledger_of, lookup, sampler_of, space_of

from analysis.__main__ import main
from analysis.fronts.stops import Past, false_stops, highest_share, history_of, late_stops, replayed, shuffled
from study.common.errors import InvalidInputError
from study.nnunet.datasets import data_paths
from study.run.trial_process import LateStop
from study.search.document import space_from
from study.search.optuna_study import ending_of
from study.search.pareto import Pareto
from study.search.space import SearchSpace, resolved_space
from study.search.trials import specs
from study.store.audit import audit_trial
from study.store.ledger import Ledger
from study.store.outcomes import Outcome, outcome
from study.store.specification import TrialSpec
from study.store.status import counts, found, study_status
from study.store.stopping import Curve, is_kept, is_published, judged, on_front, rung_epochs, searched_training
from study.store.trial_folder import TrialFolder, TrialState

LATE: dict[str, Any] = {**GRID_SPACE, "stopping": "late"}
TENTHS = [n / 10 for n in range(1, 11)]


def curve(dice: float | None, *, gain: float = 0.1, work: tuple[int, int] = (100, 1000), **more: Any) -> Curve:
    """Flat until its end: the final Dice less the gain, or 0.5 for one that has not finished."""
    level = 0.5 if dice is None else dice - gain
    told: dict[str, Any] = {"trial_id": f"{round(1e6 * (dice or 0)):012x}", "group": ("data",), "fold": 0}
    told |= {"published": False, "evaluations": tuple((share, level, 60 * share) for share in TENTHS)}
    return Curve(**{**told, "work": work, "dice": dice, **more})


# Gains of 0.01 to 0.12; ends misjudge by as much.
FINISHED = [curve(0.6 + n / 1000, gain=n / 100) for n in range(1, 13)]
GOOD = curve(0.9, gain=0.06, work=(100, 900), trial_id="900d")


def said(others: Sequence[Curve], of: Curve | None = None) -> Any:
    verdict = judged(of or curve(None), others, rung=0.5, share=0.5)
    assert verdict is not None
    return verdict


def test_the_bounds_are_quantiles_of_finished_curves() -> None:
    # 13 gains: the 13th of ceil(14 · 0.9); their median is 0.06, from which the 13 are up to 0.06 away.
    verdict = said([*FINISHED, GOOD])
    assert verdict.curves == 13
    assert verdict.bound == pytest.approx(0.5 + 0.12)
    assert verdict.projected == pytest.approx(0.5 + 0.06)
    assert (verdict.beaten_by, verdict.beaten_dice) == ("900d", pytest.approx(0.9 - 0.06))
    assert "13 finished curves project its Dice to at most 0.6200; trial 900d" in verdict.reason


def test_gains_are_those_of_the_same_learning_rate_schedule() -> None:
    others = [*FINISHED, GOOD, *(curve(0.6, gain=0.3, schedule="cosine", trial_id=f"c{n}") for n in range(20))]
    assert said(others).bound == pytest.approx(0.5 + 0.12)
    assert said(others, curve(None, schedule="cosine")).bound == pytest.approx(0.5 + 0.3)
    assert said(others, curve(None, schedule="warmup")).curves == 0


@pytest.mark.parametrize(
    ("others", "of"),
    [
        ([*FINISHED[:8], GOOD], None),
        (FINISHED, None),
        ([*FINISHED, replace(GOOD, work=(100, 1001))], None),
        ([*FINISHED, replace(GOOD, work=(101, 900))], None),
        ([*FINISHED, replace(GOOD, fold=1)], None),
        ([*FINISHED, replace(GOOD, group=("other",))], None),
        ([*FINISHED, replace(GOOD, dice=None)], None),
        ([*FINISHED, replace(GOOD, dice=0.67)], None),
        ([*FINISHED, GOOD], curve(None, published=True)),
    ],
    ids=["nine curves", "none better", "voxels", "iterations", "fold", "group", "unfinished", "too close", "published"],
)
def test_what_stops_nothing(others: list[Curve], of: Curve | None) -> None:
    assert said(others, of).beaten_by is None


@given(st.lists(st.floats(-0.3, 0.3), min_size=11, max_size=40, unique=True))
def test_the_bound_is_passed_by_one_in_ten_at_most(gains: list[float]) -> None:
    known = [curve(0.6, gain=gain, trial_id=f"{n:x}") for n, gain in enumerate(gains)]
    passed = 0
    for one in known:
        verdict = said([other for other in known if other is not one], replace(one, dice=None))
        passed += verdict.bound + 1e-12 < 0.6
    assert passed <= len(known) / 10


def test_rungs_are_evaluated_epochs_with_three_evaluations_before_the_last() -> None:
    assert rung_epochs(1000, 1) == {499: 0.5, 699: 0.7, 849: 0.85}
    assert rung_epochs(10, 1) == {4: 0.5, 6: 0.7, 8: 0.85}
    assert rung_epochs(100, 30) == {89: 0.85}
    assert [rung_epochs(epochs, every) for epochs, every in ((3, 1), (10, 4), (1000, 500))] == [{}, {}, {}]
    assert judged(curve(None), FINISHED, rung=0.5, share=0.2) is None


def test_published_schemes_are_known_by_their_tables() -> None:
    assert is_published(make_spec("pgps+", stages=50, budget=0.25), ())
    assert is_published(make_spec("rpss", seed=3), ())
    assert is_published(make_spec("pgps", min_patch=1), ()), "constant patch size"
    assert not is_published(make_spec("pgps", min_patch=0.5), ())
    rate = {"initial_learning_rate": 0.02}
    assert is_published(make_spec("pgps", training=rate), ())
    searched = searched_training({"space": {"training.initial_learning_rate": {"uniform": [0, 1]}, "x": {}}})
    assert not is_published(make_spec("pgps", training=rate), searched)
    assert is_published(make_spec("pgps"), searched)


def test_every_front_of_dice_against_time_is_a_part_of_the_front() -> None:
    points = [curve(0.8, work=(100, 900)), curve(0.7, work=(100, 900)), curve(0.7, work=(100, 800)), curve(0.8)]
    assert [on_front(point, points) for point in points] == [True, False, True, False]


def train(ledger: Ledger, spec: TrialSpec, level: float, *, dice: float | None, epochs: int = 10) -> TrialFolder:
    """A trial whose pseudo Dice is flat, finished with a Dice or trained so many epochs."""
    folder, each = ledger.add(spec, by_hand=True), spec.iterations_per_epoch
    folder.begin_attempt(HEADER)
    for epoch in range(epochs):
        folder.append_cost(make_interval(epoch * each, (epoch + 1) * each))
        iteration, seconds = (epoch + 1) * each, 10.0 * (epoch + 1)
        folder.append_epoch(
            replace(EPOCH, epoch=epoch, iteration=iteration, pseudo_dice=level, training_seconds=seconds)
        )
    if dice is not None:
        complete(folder, dice=dice)
    return folder


def fill(ledger: Ledger) -> None:
    """Twelve finished trials, of which the cheapest is by far the best."""
    for n in range(12):
        dice = 0.9 if n == 0 else 0.6
        train(ledger, make_spec("pgps", growth=n / 10 - 2), dice - 0.05, dice=dice)


def candidate(*, kept: bool) -> TrialSpec:
    drawn = (make_spec("pgps", growth=0.5 + n / 100) for n in range(100))
    return next(spec for spec in drawn if is_kept(spec.trial_id) is kept)


def asked(ledger: Ledger, folder: TrialFolder, epoch: int = 4) -> LateStop:
    stop = LateStop(folder, str(ledger.root))
    stop.epoch_done(folder.epochs()[epoch])
    return stop


def names(folder: TrialFolder) -> list[str]:
    return [event["event"] for event in folder.events()]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "study", space={"searcher": "grid"})
    fill(made)
    return made


def test_a_stop_is_recorded_before_it_is_requested_and_is_a_state_of_its_own(ledger: Ledger) -> None:
    folder = train(ledger, candidate(kept=False), 0.5, dice=None, epochs=5)
    stop = asked(ledger, folder)
    assert stop.requested and stop.recorded
    assert (names(folder)[-1], folder.state()) == ("stopped", TrialState.STOPPED)
    audit_trial(folder)
    assert folder.failure_reason() == folder.events()[-1]["reason"]
    rows = study_status(ledger)
    assert counts(rows) == "12 finished, 1 stopped"
    assert "1 stopped late, 0 resumable" in found(rows, new=0)
    reached = outcome([folder])
    assert (reached.state, reached.values, reached.projected) == (TrialState.STOPPED, {}, pytest.approx(0.55))
    # Somebody finishes it by hand.
    folder.begin_attempt(replace(HEADER, attempt=1, resumed_from_iteration=5 * folder.spec().iterations_per_epoch))
    assert folder.state() is TrialState.INTERRUPTED
    assert not asked(ledger, folder).requested


def test_one_in_seven_goes_on(ledger: Ledger) -> None:
    folder = train(ledger, candidate(kept=True), 0.5, dice=None, epochs=9)
    assert not asked(ledger, folder).requested
    assert not asked(ledger, folder, epoch=6).requested
    assert names(folder)[1:] == ["kept"]
    ids = [f"{n:012x}" for n in range(700)]
    assert sum(map(is_kept, ids)) == 100


def test_a_resumed_training_is_told_what_it_was_told_before(ledger: Ledger) -> None:
    folder = train(ledger, candidate(kept=False), 0.86, dice=None, epochs=5)
    assert not asked(ledger, folder).requested
    assert names(folder)[-1] == "rung"
    # All that finished meanwhile would say otherwise.
    for n in range(12):
        train(ledger, make_spec("pgps", growth=n / 10 - 2, seed=1), 0.999, dice=0.999)
    assert not asked(ledger, folder).requested
    assert names(folder).count("rung") == 1


def test_without_the_study_the_training_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    folder = train(ledger, candidate(kept=False), 0.5, dice=None, epochs=5)
    stop = LateStop(folder, str(tmp_path / "gone"))
    stop.epoch_done(folder.epochs()[4])
    assert not stop.requested and "not asked at 50% whether to stop" in folder.events()[-1]["text"]


def test_stopped_points_are_settled(tmp_path: Path) -> None:
    space = space_from({**OPTUNA_SPACE, "folds": [0], "objectives": ["dice", "runtime_seconds"], "stopping": "late"})
    ledger = ledger_of(space, tmp_path / "study")
    first = sampler_of(space, ledger).propose()
    assert first is not None
    (spec,) = specs(space, first.point, lookup)
    ledger.add(spec).append_event("stopped", reason="late", projected=0.6)
    again = sampler_of(space, ledger)
    second = again.propose()
    assert second is not None and second.number == 1
    end(ledger, space, second, TrialState.FINISHED)
    assert ledger.header()["space"]["stopping"] == "late"


def test_what_searchers_are_told() -> None:
    stopped = Outcome(state=TrialState.STOPPED, reason="late: …", projected=0.6)
    assert ending_of(stopped, ["dice"]) == (OptunaState.PRUNED, None, "late: …")
    space = space_of(searcher="pareto", folds=[0], stopping="late")
    strategy = Pareto(space, lambda point: specs(space, point, lookup)[0].curriculum)
    points = list(strategy.candidates(0))[:3]
    for number, point in enumerate(points):
        strategy.begin(number, point)
    strategy.tell(0, stopped)
    strategy.tell(1, Outcome(state=TrialState.STOPPED, reason="of several folds"))
    strategy.tell(2, Outcome(state=TrialState.FINISHED, values={"dice": 0.7, "runtime_seconds": 5.0, "co2_kg": 1.0}))
    assert [strategy._dice(place) for place in strategy.told] == [0.6, None, 0.7]
    assert next(strategy.candidates(3)) not in points


def test_the_default_changes_no_identity() -> None:
    assert "stopping" not in space_from(GRID_SPACE).identity()
    assert space_from({**GRID_SPACE, "stopping": "none"}).identity() == space_from(GRID_SPACE).identity()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stopping": "early"}, "stopping"),
        ({"stopping": True}, "stopping"),
        ({"training": {"epochs": 10, "validation_every_epochs": 10}}, "training.validation_every_epochs"),
        ({"training": {"epochs": [3, 10]}}, "training.epochs"),
        ({"training": {"epochs": 10, "stop_at_dice": 0.9}}, "training.stop_at_dice"),
        ({"searcher": "optuna", "trials": 3, "objectives": ["dice", "voxel_share"]}, "objectives"),
        ({"searcher": "optuna", "trials": 3, "objectives": ["dice", "nsd"], "metrics": ["nsd"]}, "objectives"),
    ],
)
def test_what_cannot_be_stopped_by_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        space_from({**LATE, **changes})
    assert error.value.field == field and "\n" not in str(error.value)


def test_a_study_keeps_what_it_was_begun_with() -> None:
    def kept(written: dict[str, Any], begun: dict[str, Any] | None) -> SearchSpace:
        space = space_from({name: value for name, value in written.items() if name != "datasets"})
        return resolved_space(space, data_paths(Path("nowhere")), {} if begun is None else {"space": begun})

    assert kept(LATE, None).stopping == "late"
    assert kept(LATE, {"searcher": "grid"}).stopping == "none"
    assert kept(GRID_SPACE, {"searcher": "grid", "stopping": "late"}).stopping == "late"


def test_the_bound_of_false_stops() -> None:
    assert highest_share(0, 58) > 0.05 > highest_share(0, 59)
    assert highest_share(0, 0) == highest_share(3, 3) == 1.0
    assert highest_share(1, 20) == pytest.approx(0.2161, abs=1e-4)
    assert false_stops(0, 10).endswith("at most 25.9% (95 %, Clopper–Pearson): not shown to be below 5%")
    assert false_stops(0, 60).endswith(": below 5%")


def past(one: Curve, began: float) -> Past:
    return Past(curve=one, began=began, ended=began + 0.5, validation_seconds=40.0)


def test_a_replay_knows_what_had_finished_and_stops_what_is_beaten() -> None:
    history = [past(one, n) for n, one in enumerate([*FINISHED, GOOD])]
    bad = replace(curve(0.58, gain=0.08), trial_id="1")
    (stop,) = replayed([*history, past(bad, 20)])
    assert (stop.trial_id, stop.rung, stop.kept, stop.false) == ("1", 0.5, False, False)
    assert stop.saved_seconds == pytest.approx(60 - 30 + 40)
    (kept,) = replayed([*history, past(replace(bad, trial_id="7"), 20)])
    assert (kept.kept, kept.saved_seconds) == (True, 0.0)
    (false,) = replayed([*history, past(replace(bad, dice=0.95), 20)])
    assert false.false
    assert replayed([*history, past(bad, 12.2)]) == [], "the best one was still being trained"
    assert sorted(one.curve.trial_id for one in shuffled(history, 1)) == sorted(one.curve.trial_id for one in history)


def test_the_verb_replays_studies_and_stored_grids(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
) -> None:
    history = history_of(ledger)
    assert len(history) == 12 and history[0].seconds == pytest.approx(105.0)
    stored = tmp_path / "grid.json"
    stored.write_text(json.dumps({"trials": [{"past": one.to_json()} for one in history]}))
    assert main(["replay-stops", str(ledger.root), str(stored), "--json", "--shuffles", "5"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["finished"] == 12 and {**first, "study": ""} == {**second, "study": ""}
    assert main(["replay-stops", str(stored), "--shuffles", "2"]) == 0
    assert "in 2 other orders" in capsys.readouterr().out
    damaged = ledger.trials()[0]
    (damaged.path / "costs.jsonl").write_text("no record\n")
    assert main(["replay-stops", str(ledger.root)]) == 0
    printed = capsys.readouterr()
    assert "11 finished" in printed.out and printed.err.startswith(f"{damaged.trial_id} unreadable: ")
    shutil.rmtree(ledger.root / "trials")
    stored.write_text("[]")
    for wrong in (ledger.root, stored, tmp_path, tmp_path / "nowhere"):
        refused("replay-stops", wrong, by=main)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dice": "0.9"}, "curve.dice: received '0.9'"),
        ({"dice": math.nan}, "curve.dice: received "),
        ({"evaluations": [[0.5, 0.8]]}, "curve.evaluations.0.2 is missing"),
        ({"evaluations": []}, "has no finished training with a curve"),
        ({"work": [1]}, "curve.work.1 is missing"),
        ({"trial_id": "g"}, "curve.trial_id: received 'g'"),
    ],
)
def test_a_damaged_grid_is_one_line(
    change: dict[str, Any], reason: str, ledger: Ledger, tmp_path: Path, refused: Callable[..., str]
) -> None:
    one = history_of(ledger)[0].to_json()
    stored = tmp_path / "grid.json"
    stored.write_text(json.dumps({"trials": [{"past": {**one, "curve": {**one["curve"], **change}}}]}))
    assert reason in refused("replay-stops", stored, by=main)


def test_a_report_says_how_often_it_was_wrong(ledger: Ledger) -> None:
    assert late_stops([ledger.root]) == []
    asked(ledger, train(ledger, candidate(kept=False), 0.5, dice=None, epochs=5))
    folder = train(ledger, candidate(kept=True), 0.5, dice=None, epochs=10)
    asked(ledger, folder)
    complete(folder, dice=0.6)
    (sentence,) = late_stops([ledger.root, Path("nowhere")])
    assert sentence.startswith(
        "Late stopping: 1 stopped; of those that would have been and were finished all the same, "
    )
    assert "false stops: 0 of 1, at most 95.0% (95 %, Clopper–Pearson): not shown to be below 5%" in sentence
