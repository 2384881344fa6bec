"""What today's code makes of fixed things, to be compared with what yesterday's made: ids, weights, proposals, tables.

`python tests/goldens.py` writes `tests/golden` anew. Do that only where a result is meant to change; if weights change
with it, raise `TRAINING_VERSION`, which refuses studies that were begun before.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from examples import HEADER, complete, make_interval, make_spec
from prepared import NAME, Stopper, checkpoint_weights, model_folder, prepare_phantoms, spec_of, train, workplace
from rankable import write_ranking
from searching import lookup

from analysis.tables.frame import read_studies
from analysis.tables.sources import save
from study.__main__ import main as run_verb
from study.common import files
from study.common.errors import TrialInterrupted
from study.common.machine import cpu_name
from study.nnunet.datasets import DataPaths, data_paths, find_dataset
from study.nnunet.identity import EARLIER_CODE
from study.run.trial import run_trial
from study.search.document import space_from
from study.search.samplers import Sampler, make_sampler
from study.search.trials import specs
from study.store.ledger import Ledger
from study.store.outcomes import outcome
from study.store.trial_folder import TrialFolder, TrialState

GOLDEN = Path(__file__).parent / "golden"
# nnU-Net's SGD: Adam would make of rounding errors on another processor steps as large as any.
TRAINING: Mapping[str, Any] = {"optimizer": "sgd", "epochs": 2, "iterations_per_epoch": 5, "validation_batches": 1}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "cps": {"scheme": "cps"},
    "pgps": {"scheme": "pgps"},
    "pgps+": {"scheme": "pgps+"},
    "rpss": {"scheme": "rpss"},
    "pdl": {"scheme": "pgps", "pdl_fraction": 0.5, "pdl_epochs": 1},
}
SPACE: Mapping[str, Any] = {
    "name": "golden",
    "trials": 8,
    "datasets": [1],
    "folds": [0, 1],
    "curriculum": {"min_patch": {"uniform": [0, 1]}, "stages": {"integer": [1, 9]}, "batch_growth": [0, "stepwise"]},
    "training": {"epochs": 10, "initial_learning_rate": {"log_uniform": [1e-4, 1e-1]}},
}
SEARCHERS: Mapping[str, Mapping[str, Any]] = {
    "optuna": {"searcher": "optuna", "objectives": ["dice", "runtime_seconds", "co2_kg"]},
    "random": {"searcher": "random"},
    "grid": {
        "searcher": "grid",
        "trials": None,
        "curriculum": {"scheme": ["cps", "pgps", "rpss"], "budget": [0.5, 1.0]},
        "training": {"epochs": 10},
    },
}
BEFORE_THE_INTERRUPTION = 3


def trial_ids() -> dict[str, str]:
    """What thirty specifications are called."""
    axes: list[dict[str, Any]] = [
        *({"budget": budget} for budget in (0.1, 0.25, 1 / 3)),
        *({"min_patch": share} for share in (0.2, 0.5, 0.99)),
        *({"stages": count} for count in (1, 2, 5)),
        *({"batch_growth": growth} for growth in (0.5, 1.0, "stepwise")),
        *({"order": order} for order in ("shrinking", "random")),
        {"chain": "smallest-first"},
        {"chain_start": "one-voxel"},
        {"allocation": "reference"},
        {"shared_crops": True, "batch_growth": 1.0},
    ]
    settings: list[dict[str, Any]] = [
        {"optimizer": "adamw"},
        {"initial_learning_rate": 3e-3},
        {"epochs": 20},
        {"compile_network": "always"},
        {"test_time_mirroring": False},
        {"stop_at_dice": 0.8},
    ]
    made = [
        *(make_spec(scheme) for scheme in ("cps", "pgps", "pgps+", "rpss", "efficiency", "performance")),
        *(make_spec("pgps", **point) for point in axes),
        *(make_spec("pgps+", training=setting) for setting in settings),
    ]
    return {f"{number:02} {spec.scheme}": spec.trial_id for number, spec in enumerate(made, start=1)}


def trained(paths: DataPaths, folder: Path, kind: str) -> dict[str, Any]:
    """Losses and final weights of a short training, and the processor on which these hold bit for bit."""
    import torch

    axes = dict(KINDS[kind])
    spec = spec_of(paths, axes.pop("scheme"), training=TRAINING, **axes)
    trial = train(spec, Ledger.create(folder), workplace(paths))
    checkpoint = model_folder(trial) / "checkpoint_final.pth"
    weights = torch.load(checkpoint, map_location="cpu", weights_only=False)["network_weights"]
    norms = {name: float(tensor.double().norm()) for name, tensor in weights.items() if name.endswith("conv.weight")}
    return {
        "losses": [report.training_loss for report in trial.epochs()],
        "norm_of_weights": sum(norms.values()),
        "sha256": checkpoint_weights(checkpoint),
        "exact_on": f"{cpu_name()}, torch {torch.__version__}",
    }


def proposals(root: Path, searcher: str) -> list[dict[str, Any]]:
    """All points that a study proposes whose driver is gone after the first few, one of them half done."""
    space = space_from({name: value for name, value in {**SPACE, **SEARCHERS[searcher]}.items() if value is not None})
    ledger = Ledger.create(root, space=space.identity())
    first, found = make_sampler(space, ledger, lookup), []
    for number in range(BEFORE_THE_INTERRUPTION):
        found.append(_proposed(first, ledger, specs, space, ends=number != 1))
    second = make_sampler(space, ledger, lookup)
    while point := _proposed(second, ledger, specs, space, ends=True):
        found.append(point)
    return found


def _proposed(sampler: Sampler, ledger: Ledger, trials: Any, space: Any, *, ends: bool) -> dict[str, Any]:
    proposal = sampler.propose()
    if proposal is None:
        return {}
    folders = [ledger.add(spec) for spec in trials(space, proposal.point, lookup)]
    if ends:
        for folder in folders:
            _finish(folder)
        sampler.tell(proposal.number, outcome(folders))
    return dict(proposal.point)


def _finish(folder: TrialFolder) -> None:
    """Dice and seconds follow from the stage table."""
    spec = folder.spec()
    folder.begin_attempt(HEADER)
    seconds = round(100 * spec.curriculum.voxel_share)
    folder.append_cost(replace(make_interval(0, seconds), iteration_stop=spec.curriculum.total_iterations))
    complete(folder, dice=round(0.5 + spec.curriculum.voxel_share / 4, 6))


def write_study(paths: DataPaths, root: Path) -> None:
    """A study of real trials: finished, interrupted, with PDL; and one that failed, one that did not fit."""
    ledger, place = Ledger.create(root), workplace(paths)
    write_ranking(find_dataset(paths, NAME))
    for axes in ({"scheme": "cps"}, {"scheme": "pgps"}, {"scheme": "rpss", "seed": 1}, KINDS["pdl"]):
        run_trial(spec_of(paths, **axes), ledger, place)
    stopper = Stopper(after=12)
    with contextlib.suppress(TrialInterrupted):
        run_trial(spec_of(paths, "pgps+"), ledger, place, progress=stopper, stop=stopper.stop)
    ledger.add(spec_of(paths, "pgps", budget=0.5)).fail(reason="RuntimeError: it broke")
    infeasible = ledger.add(spec_of(paths, "pgps", batch_growth=1.0))
    infeasible.fail(reason="CUDA out of memory", state=TrialState.INFEASIBLE)
    for folder in root.glob("trials/*/results"):
        shutil.rmtree(folder)
    _forget_where(root)


def _forget_where(root: Path) -> None:
    """Neither machine nor folder, and the code as it was recorded before it had a number."""
    (digest,) = EARLIER_CODE
    for path in root.glob("trials/*/attempts/*.json"):
        header = files.read_json(path)
        versions = {**header["versions"], "code": digest}
        files.write_json(path, {**header, "hostname": "node", "preprocessed": "/data", "versions": versions})


def write_tables(study: Path, folder: Path) -> None:
    """The tidy tables as parquet files."""
    folder.mkdir(parents=True, exist_ok=True)
    save(read_studies([study]), folder)


def front(study: Path) -> list[dict[str, Any]]:
    """What `front --json` says of Dice against voxels."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert run_verb(["front", str(study), "--objectives", "dice,voxels", "--json"]) == 0
    points: list[dict[str, Any]] = json.loads(said.getvalue())
    return points


def main() -> None:
    """Write everything anew."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        data.mkdir()
        prepare_phantoms(data)
        paths = data_paths(data)
        files.write_json(GOLDEN / "ids.json", trial_ids())
        weights = {kind: trained(paths, Path(scratch, kind), kind) for kind in KINDS}
        files.write_json(GOLDEN / "weights.json", weights)
        found = {name: proposals(Path(scratch, name), name) for name in SEARCHERS}
        files.write_json(GOLDEN / "proposals.json", found)
        write_study(paths, GOLDEN / "study")
        write_tables(GOLDEN / "study", GOLDEN / "tables")
        files.write_json(GOLDEN / "front.json", front(GOLDEN / "study"))


if __name__ == "__main__":
    main()
