"""How a study goes against its preview, what `pareto` knows by it, and trainings that do not fit on a card together."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from examples import HEADER, METER, complete, make_interval
from hypothesis import given
from hypothesis import strategies as st
from searching import all_of, ledger_of, lookup, sampler_of, space_of
from test_preview import HARDWARE, SPACE, calibration, spec_of, train

from study.cli.costs import Costs, Sources, study_preview
from study.cli.live import LiveTable
from study.common.errors import LedgerError
from study.common.tables import PlainConsole
from study.search.space import SearchSpace
from study.store.ledger import Ledger
from study.store.outlook import StudyPreview, record_preview, recorded_preview, study_outlook
from study.store.status import study_status
from study.store.taken import Peak, needed_bytes, too_large

PARETO: dict[str, Any] = {**SPACE, "searcher": "pareto", "trials": 8, "objectives": ["dice", "runtime_seconds"]}


def preview_of(space: SearchSpace, **changes: Any) -> StudyPreview:
    sources = Sources(calibrations=[calibration(spec_of("pgps+", 1.0), **changes)], hardware=HARDWARE)
    found = study_preview(space, lookup, Costs(sources))
    assert found is not None
    return found


def begun(tmp_path: Path, **changes: Any) -> Ledger:
    """A study of the schemes that was previewed."""
    space = space_of(**{**SPACE, **changes})
    ledger = ledger_of(space, tmp_path / "study")
    record_preview(ledger, preview_of(space))
    return ledger


def test_a_study_goes_against_what_was_recorded_before_it_began(tmp_path: Path) -> None:
    ledger = begun(tmp_path)
    before = study_outlook(ledger, study_status(ledger))
    assert before is not None and before.against is None and (before.trials, before.of_trials) == (0, 12)
    # The calibration is a quarter slower than what is trained.
    train(ledger, spec_of("pgps", 1.0))
    half = ledger.add(spec_of("cps", 1.0))
    half.begin_attempt(replace(HEADER, cpus=16.0, meter=METER))
    half.append_cost(replace(make_interval(0, 1250), seconds=0.0))
    rows = study_status(ledger)
    after = study_outlook(ledger, rows)
    assert after is not None and after.against == pytest.approx(0.8, rel=0.01)
    assert after.spent_seconds == pytest.approx(sum(row.runtime_seconds for row in rows))
    assert after.expected_seconds == before.expected_seconds
    known = recorded_preview(ledger)
    assert known is not None
    done = [known.of(spec_of("pgps", 1.0)), known.of(spec_of("cps", 1.0))]
    ended = sum(share * each.total[0] for share, each in zip((1.0, 0.5), done, strict=True) if each is not None)
    assert after.left_seconds == pytest.approx((after.against or 0) * (before.left_seconds - ended), rel=1e-3)
    assert after.low_seconds == pytest.approx(0.9 * after.left_seconds)
    assert after.words().startswith("1 of 12 trials, ") and "-20% against the preview, about " in after.words()


def test_the_preview_of_the_beginning_stays(tmp_path: Path) -> None:
    ledger = begun(tmp_path)
    first = recorded_preview(ledger)
    record_preview(ledger, preview_of(space_of(**SPACE), taken_at=5.0))
    assert recorded_preview(ledger) == first
    old = ledger_of(space_of(**SPACE), tmp_path / "old")
    proposal = sampler_of(space_of(**SPACE), old).propose()
    assert proposal is not None
    record_preview(old, first)
    assert recorded_preview(old) is None and study_outlook(old, []) is None


def test_a_damaged_preview_is_named(tmp_path: Path) -> None:
    ledger = begun(tmp_path)
    header = ledger.header()
    header["preview"]["seconds"] = "many"
    (ledger.root / "study.json").write_text(json.dumps(header))
    with pytest.raises(LedgerError, match=r"study.json is damaged: preview: seconds: received 'many'"):
        recorded_preview(ledger)


def test_lines_of_a_run_tell_the_time_left_by_the_preview(tmp_path: Path) -> None:
    ledger, said = begun(tmp_path), io.StringIO()
    with LiveTable(ledger, PlainConsole(said, width=200)) as table:
        table.begin(12)
        train(ledger, spec_of("pgps", 1.0))
        table.refresh()
    first, *_, last = said.getvalue().splitlines()
    assert "(1 of 12, about " in first and " to " in first and first.endswith("left)")
    assert last.startswith("1 of 12 trials, ")


def test_pareto_knows_its_costs_by_the_preview_and_a_resumed_study_knows_the_same(tmp_path: Path) -> None:
    space = space_of(**PARETO)
    points = {}
    for name, scale in (("without", None), ("with", 1.0), ("again", 1.0)):
        ledger = ledger_of(space, tmp_path / name)
        if scale is not None:
            # Of the largest sizes nothing but the patch decides: cheap in voxels is not cheap in seconds.
            record_preview(ledger, preview_of(space))
        points[name] = [proposal.point for proposal in all_of(sampler_of(space, ledger))]
    assert points["with"] == points["again"]
    costs = [preview_of(space).of(spec_of(p["curriculum.scheme"], p["curriculum.budget"])) for p in points["with"]]
    after = [each.amounts[0] for each in costs[6:] if each is not None]
    assert after == sorted(after)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(1, 1000)), min_size=1), st.integers(1, 200))
def test_memory_is_that_of_the_next_larger_or_grows_with_the_voxels(known: list[tuple[int, int]], voxels: int) -> None:
    peaks = [Peak(voxels=n, reserved_bytes=size, card_bytes=1) for n, size in known]
    found = needed_bytes(voxels, peaks)
    if any(n == voxels for n, _ in known):
        assert found <= max(size for n, size in known if n == voxels)
    assert found <= max(size for _, size in known) * max(1.0, voxels / max(n for n, _ in known)) + 1


@pytest.mark.parametrize(
    ("voxels", "on_a_card", "said"),
    [(100, 2, ""), (101, 2, "2 trainings on one card need about"), (101, 1, ""), (0, 4, ""), (40, 4, "")],
)
def test_trainings_that_do_not_fit_on_a_card_are_one_line(voxels: int, on_a_card: int, said: str) -> None:
    known = [Peak(voxels=n, reserved_bytes=n * 2**30, card_bytes=200 * 2**30) for n in (50, 100, 150)]
    line = too_large([1, voxels], known, on_a_card=on_a_card)
    assert line.startswith(said) and bool(line) is bool(said) and "\n" not in line
    assert too_large([voxels], [], on_a_card=on_a_card) == ""


def test_memory_of_finished_trials_counts(tmp_path: Path) -> None:
    ledger, spec = ledger_of(space_of(**SPACE), tmp_path / "study"), spec_of("cps", 0.5)
    folder = ledger.add(spec)
    memory: dict[str, Any] = {"peak_memory_bytes": 50 * 2**30, "card_memory_bytes": 80 * 2**30}
    header = replace(HEADER, cpus=16.0, meter=METER, gpus=0.5, **memory)
    folder.begin_attempt(header)
    folder.append_cost(make_interval(0, spec.curriculum.total_iterations))
    complete(folder)
    sources = Sources(ledgers=[ledger], hardware=HARDWARE, card="Some GPU")
    (peak,) = sources.peaks(spec_of("pgps", 1.0))
    assert peak == Peak(voxels=128**3 * 2, reserved_bytes=50 * 2**30, card_bytes=80 * 2**30)
    assert replace(sources, card="Other GPU").peaks(spec) == []
