"""`python -m analysis replay-stops`: what late stopping would have done to finished studies. Nothing is trained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from study.buckets.storage import place
from study.common.errors import LedgerError, check_count
from study.common.setting import whole
from study.common.terminal import complain
from study.store.stopping import LEAST_CURVES

if TYPE_CHECKING:
    from analysis.fronts.stops import Past, Stop

EXAMPLES = """\
  python -m analysis replay-stops studies/hippo
  python -m analysis replay-stops studies/hippo studies/lung --shuffles 100 --json
  python -m analysis replay-stops benchmarks/grid.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("studies", nargs="+", type=place, metavar="DIR|URL", help="study folder, URL, or stored grid")
    parser.add_argument(
        "--shuffles", type=whole, default=0, metavar="N", help="also one after another in so many other orders"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> int:
    """Replay each dataset of each study by itself."""
    check_count("--shuffles", args.shuffles, least=0, most=10_000)
    found = []
    for study in args.studies:
        groups: dict[tuple[str, ...], list[Past]] = {}
        for past in _history(study):
            groups.setdefault(past.curve.group, []).append(past)
        found += [_summary(str(study), group, pasts, args.shuffles) for group, pasts in groups.items()]
    print(json.dumps(found, indent=1) if args.json else "\n".join(map(_text, found)))
    return 0


def _history(study: Path | str) -> list[Past]:
    """The finished trainings of a study, or of a stored grid.

    Raises:
        LedgerError: there is none of both, or nothing has finished.
    """
    from analysis.fronts.stops import Past, history_of
    from study.buckets.view import reading
    from study.common.files import read_json
    from study.store.ledger import Ledger

    if isinstance(study, Path) and study.is_file():
        try:
            found = [Past.from_json(trial["past"]) for trial in read_json(study)["trials"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            raise LedgerError(f"{study} is no stored grid ({reason}); name a study folder") from None
        found = [past for past in found if past.curve.dice is not None and past.curve.evaluations]
    else:
        with reading(study) as (folder, _):
            found = history_of(Ledger.open(folder), complain)
    if not found:
        raise LedgerError(f"{study} has no finished training with a curve, so there is nothing to replay")
    return found


def _summary(study: str, group: Sequence[str], pasts: Sequence[Past], shuffles: int) -> dict[str, Any]:
    from analysis.fronts.stops import highest_share, replayed, shuffled

    stops = replayed(pasts)
    false = sum(stop.false for stop in stops)
    whole_seconds = sum(past.seconds for past in pasts)
    others = [_shares(replayed(shuffled(pasts, seed)), whole_seconds) for seed in range(shuffles)]
    return {
        "study": study,
        "dataset": group[0],
        "plans": group[1],
        "finished": len(pasts),
        "hours": whole_seconds / 3600,
        "stops": len(stops),
        "kept": sum(stop.kept for stop in stops),
        "by_rung": {f"{rung:g}": sum(s.rung == rung for s in stops) for rung in sorted({s.rung for s in stops})},
        "saved_hours": sum(stop.saved_seconds for stop in stops) / 3600,
        "saved_share": _shares(stops, whole_seconds)[0],
        "false": false,
        "false_bound": highest_share(false, len(stops)),
        "trials": {stop.trial_id: stop.rung for stop in stops},
        "shuffles": [{"saved_share": saved, "false": wrong, "stops": count} for saved, wrong, count in others],
    }


def _shares(stops: Sequence[Stop], whole_seconds: float) -> tuple[float, int, int]:
    saved = sum(stop.saved_seconds for stop in stops)
    return saved / whole_seconds if whole_seconds else 0.0, sum(stop.false for stop in stops), len(stops)


def _text(found: dict[str, Any]) -> str:
    from analysis.fronts.stops import false_stops

    rungs = ", ".join(f"{count} at {float(rung):.0%}" for rung, count in found["by_rung"].items())
    lines = [
        f"{found['study']}  {found['dataset']}, {found['plans']}: {found['finished']} finished, "
        f"{found['hours']:.2f} hours",
        f"would stop {found['stops']}{f' ({rungs})' if rungs else ''}, of which {found['kept']} finished all the same",
        f"would save {found['saved_hours']:.2f} hours, {found['saved_share']:.1%} of training and final validation",
        false_stops(found["false"], found["stops"]),
    ]
    if found["finished"] <= LEAST_CURVES:
        lines.append(f"nothing is stopped before {LEAST_CURVES} others with a curve have finished")
    if others := found["shuffles"]:
        saved = sorted(other["saved_share"] for other in others)
        wrong, count = (sum(other[name] for other in others) for name in ("false", "stops"))
        lines.append(
            f"in {len(others)} other orders: {median(saved):.1%} saved in the median "
            f"({saved[0]:.1%} to {saved[-1]:.1%}), {wrong} of {count} stops false"
        )
    return "\n".join(lines)
