"""`export`: a configuration's models as stock nnU-Net's zip, or all trials into a tracker of experiments."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.buckets.storage import local, place, url_of
from study.cli.options import add_tracker_options, trackers_of
from study.common.errors import InvalidInputError, LedgerError, MachineError, MissingDataError
from study.common.files import name_of
from study.common.setting import whole
from study.common.terminal import complain, say
from study.common.trackers import check_target

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """\
  python -m study export studies/hippo --point best --out model.zip
  # a configuration or one trial, by the beginning of its id
  python -m study export studies/hippo --point 3fa9 --seed 1 --out model.zip
  python -m study export studies/hippo/trials/0bd41c2a77e9 --out model.zip
  # curves, settings, results and costs of all trials; again and again while the study runs
  python -m study export studies/hippo --tensorboard runs --follow
"""
BEST = "best"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    parser.add_argument(
        "source", type=place, metavar="STUDY|TRIAL", help="study folder, or the folder of a trial in it"
    )
    parser.add_argument("--out", type=local, metavar="FILE.zip", help="for nnUNetv2_install_pretrained_model_from_zip")
    track = add_tracker_options(parser, "all trials of the study into a tracker, one run a trial")
    track.add_argument("--follow", action="store_true", help="go on until nobody runs the study")
    model = parser.add_argument_group("which model (needed where the study has several configurations)")
    model.add_argument("--point", metavar="ID", help=f"of a configuration or trial, or its beginning; or {BEST}")
    model.add_argument("--seed", type=whole, metavar="N", help="default: the one with the most finished folds")


def run(args: argparse.Namespace) -> int:
    """Write what was asked for."""
    trackers = trackers_of(args)
    if args.out is None and not trackers:
        legal = "the name of a zip to write, or --mlflow, --wandb or --tensorboard"
        raise InvalidInputError(field="--out", received="nothing", legal=legal)
    if args.out is not None:
        _export_model(args)
    if trackers:
        _track(args, trackers)
    return 0


def _track(args: argparse.Namespace, trackers: Mapping[str, str]) -> None:
    from study.buckets.view import reading
    from study.run.trackers import PASS_SECONDS, Teller
    from study.store.ledger import Ledger

    for name, target in trackers.items():
        check_target(name, target, f"--{name}")
    with reading(args.source) as (folder, view):
        ledger = Ledger.open(folder)
        tellers = {name: Teller(name, where, name_of(folder.resolve()), complain) for name, where in trackers.items()}
        while True:
            goes_on = args.follow and ledger.runner() is not None
            for name, teller in tellers.items():
                try:
                    say(f"{name}: {teller.tell(ledger)} of {len(ledger.trials())} trials had something new")
                except MachineError as error:
                    if not goes_on:
                        raise
                    complain(str(error))
            if not goes_on:
                return
            time.sleep(max(PASS_SECONDS[name] for name in trackers))
            if view is not None:
                view.refresh()


def _export_model(args: argparse.Namespace) -> None:
    from analysis.advice.text import model_card
    from analysis.statistics.intervals import with_intervals
    from analysis.statistics.study_results import gather
    from study.nnunet.checkpoints import dataset_description, previous_stage, write_model
    from study.store.ledger import Ledger
    from study.store.prediction import previous_command, stock_command

    _check_out(args.out)
    study, wanted = _study_of(args)
    results = gather([study], with_details=False)
    points = with_intervals(results.points, results.tables)
    point, mine = _chosen(points, results.tables.trials, wanted)
    seed = _seed(mine, args.seed)
    taken = mine[mine["seed"] == seed].sort_values("fold")
    ledger = Ledger.open(study)
    folders = [ledger.trial(trial_id) for trial_id in taken["trial_id"]]
    spec, previous, folds = folders[0].spec(), previous_stage(folders[0]), [int(fold) for fold in taken["fold"]]
    others, missing = sorted(set(mine["seed"]) - {seed}), sorted(set(mine["fold"]) - set(folds))
    commands = [*([previous_command(spec, previous)] if previous else ()), stock_command(spec, folds, previous)]
    rule = _seeds_in_words(seed, others, missing)
    card = model_card(
        point,
        taken,
        dataset_description(folders[0]),
        commands=commands,
        previous_stage=previous,
        seed_rule=rule,
    )
    write_model(folders, card, args.out)
    say(f"{args.out}: {point['summary']}, point {point['point_id']}, Dice {point['dice']:.4f}. {rule}")
    say(f"nnUNetv2_install_pretrained_model_from_zip {shlex.quote(str(args.out))}")
    if previous is not None:
        say(f"# a cascade: first with a model of {previous}, exported from its own study, by the options on its card")
    for command in commands:
        say(command)


def _seeds_in_words(seed: int, others: Sequence[int], missing: Sequence[int]) -> str:
    """Which seed a model is of, which others the point has, and the folds that have not finished with it."""
    words = f"Models of seed {seed}"
    if others:
        words += f"; the point's trials of seed{'s' * (len(others) > 1)} {', '.join(map(str, others))} are not in it"
    if missing:
        folds = f"fold{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
        words += f"; without {folds}, finished with other seeds alone"
    return f"{words}."


def _check_out(out: Path) -> None:
    if out.suffix != ".zip" or out.is_dir():
        raise InvalidInputError(field="--out", received=str(out), legal="the name of a file ending in .zip")


def _study_of(args: argparse.Namespace) -> tuple[Path, str | None]:
    """The study's folder, and which of its configurations or trials is meant."""
    if url_of(args.source) is not None:
        raise InvalidInputError(
            field="STUDY",
            received=args.source,
            legal="a folder",
            remedy="the models of a study in object storage are fetched by the command that `status` prints",
        )
    path = Path(args.source).resolve()
    root = next((folder for folder in (path, *path.parents) if (folder / "study.json").exists()), None)
    if root is None:
        raise LedgerError(f"{args.source} is no study folder and no trial of one (no study.json there or above)")
    # studies/hippo/trials/ID, or the id of a configuration in its place.
    named = path.name if path != root else None
    if named is not None and args.point is not None:
        raise InvalidInputError(field="--point", received=args.point, legal=f"left out: {args.source} names one")
    return root, named or args.point


def _chosen(points: pd.DataFrame, trials: pd.DataFrame, wanted: str | None) -> tuple[pd.Series[Any], pd.DataFrame]:
    """The configuration meant, and its finished trials, or the one of them that was named."""
    finished = trials[trials["state"] == "finished"]
    if points.empty:
        raise MissingDataError("nothing to export: no trial of the study has finished")
    ordered = points.sort_values(["dice", "point_id"], ascending=[False, True])
    if wanted is None and len(ordered) > 1:
        raise InvalidInputError(field="--point", received="nothing", legal=f"{BEST}, or one of {_listed(ordered)}")
    if wanted is None or wanted == BEST:
        point = ordered.iloc[0]
        return point, _of(point, finished)
    named = {name: ordered[ordered["point_id"] == name] for name in ordered["point_id"]}
    named |= {
        name: ordered[ordered["trial_ids"].map(str.split).map(lambda ids, name=name: name in ids)]
        for name in finished["trial_id"]
    }
    found = [name for name in named if name.startswith(wanted)] if wanted else []
    if wanted in named:
        found = [wanted]
    if len(found) != 1:
        unfinished = trials[trials["trial_id"].str.startswith(wanted)] if wanted else trials.iloc[:0]
        if not found and len(unfinished):
            states = ", ".join(f"{row['trial_id']} is {row['state']}" for _, row in unfinished.iterrows())
            raise MissingDataError(f"nothing to export: {states}; only finished trials have a result")
        why = f"{len(found)} ids that begin so: {', '.join(found[:8])}" if found else f"one of {_listed(ordered)}"
        raise InvalidInputError(field="--point", received=wanted, legal=why if not found else f"one of {why}")
    point = named[found[0]].iloc[0]
    own = _of(point, finished)
    return point, own if found[0] == point["point_id"] else own[own["trial_id"] == found[0]]


def _of(point: pd.Series[Any], finished: pd.DataFrame) -> pd.DataFrame:
    return finished[finished["trial_id"].isin(point["trial_ids"].split())]


def _listed(points: pd.DataFrame) -> str:
    shown = [f"{row['point_id']} ({row['summary']}, Dice {row['dice']:.4f})" for _, row in points.head(8).iterrows()]
    return ", ".join([*shown, f"… {len(points) - 8} more"] if len(points) > 8 else shown)


def _seed(mine: pd.DataFrame, given: int | None) -> int:
    seeds = sorted(set(map(int, mine["seed"])))
    if given is not None and given not in seeds:
        raise InvalidInputError(field="--seed", received=given, legal=f"one of {', '.join(map(str, seeds))}")
    folds = mine.groupby("seed")["fold"].nunique()
    return given if given is not None else max(seeds, key=lambda seed: (folds[seed], -seed))
