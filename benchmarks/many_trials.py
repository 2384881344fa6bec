"""CPU seconds that reading many made-up, finished trials takes: each verb in a process of its own, on one thread.

    python benchmarks/many_trials.py 10000 --verbs status front

`watch` is a look after one trial has changed, of a process that has read all of them; `audit` is what a resumed `run`
does before it starts anything. Nothing is left behind.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from study.store.audit import audit
from study.store.ledger import Ledger
from study.store.status import StatusBoard

VERBS = {
    "status": ("study", "status", "{}"),
    "front": ("analysis", "front", "{}"),
    "recommend": ("analysis", "recommend", "{}", "--knee"),
    "compare": ("analysis", "compare", "{}", "--json"),
    "report": ("analysis", "report", "{}", "--out", "{}-report"),
}


def main() -> None:
    """Make the trials and read them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("trials", type=int)
    parser.add_argument("--verbs", nargs="+", choices=(*VERBS, "audit", "watch"), default=("status", "watch", "front"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        made = "import os, sys, pathlib, benchmarks.made_up as s; os.fsync = lambda _: None; "
        made += "s.write_study(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
        subprocess.run([sys.executable, "-c", made, str(study), str(args.trials)], check=True)
        for verb in args.verbs:
            seconds = _inside(verb, study) if verb in ("audit", "watch") else _spent(verb, study)
            print(f"{verb:<10} {seconds:8.2f} s of CPU, {1000 * seconds / args.trials:6.3f} ms a trial", flush=True)


def _spent(verb: str, study: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", *(word.format(study) for word in VERBS[verb])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _inside(verb: str, study: Path) -> float:
    ledger = Ledger.open(study)
    board = StatusBoard(ledger)
    if verb == "watch":
        board.rows()
        (ledger.trials()[0].path / "result.json").touch()
    started = time.process_time()
    board.rows() if verb == "watch" else audit(ledger)
    return time.process_time() - started


if __name__ == "__main__":
    main()
