"""optuna-dashboard's copy of a study has its trials' own times and curves, not those of the copying."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import optuna
from searching import FINISHED, OPTUNA_SPACE, end, ledger_of, proposer_of

from study.common import files
from study.search.document import space_from
from study.search.mirror import NUMBER, open_mirror


def test_a_trial_has_its_own_times_and_its_curve(tmp_path: Path) -> None:
    from dataclasses import replace

    from examples import EPOCH

    space = space_from({**OPTUNA_SPACE, "trials": 1})
    ledger = ledger_of(space, tmp_path / "study")
    proposal = proposer_of(space, ledger).propose()
    assert proposal is not None
    end(ledger, space, proposal, FINISHED)
    for fold, trial_id in enumerate(proposal.trial_ids):
        folder = ledger.trial(trial_id)
        for epoch, dice in enumerate((0.25, None, 0.5)):
            shifted = None if dice is None else dice + 0.25 * fold
            folder.append_epoch(replace(EPOCH, epoch=epoch, pseudo_dice=shifted))
        path = folder.path / "events.jsonl"
        path.write_text("")
        for time in (1_700_000_000.0 + fold, 1_700_000_600.0 + fold):
            files.append_line(path, {"event": "note", "time": time, "text": ""})
    url = f"sqlite:///{tmp_path / 'shown.db'}"
    open_mirror(url, space, ledger)
    [shown] = optuna.load_study(study_name=space.name, storage=url).trials
    assert shown.user_attrs[NUMBER] == 0
    assert shown.datetime_start == datetime.fromtimestamp(1_700_000_000)
    assert shown.datetime_complete == datetime.fromtimestamp(1_700_000_601)
    # The last epochs are as `end` made them.
    assert shown.intermediate_values == {1: 0.375, 3: 0.625, **dict.fromkeys(range(4, 11), 0.7)}
