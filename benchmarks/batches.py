"""What it costs a core to draw a batch in two checkouts of this project, and whether they agree; interleaved, one run.

    git worktree add ../before COMMIT
    python benchmarks/batches.py ../before . --data data --dataset 4

For the first and the last stage of a scheme, each checkout's process draws the same batches in turn, on one thread.
Printed are the medians of its process time, their ratio, and whether all arrays were equal bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

DRAW = """
import hashlib, sys, time
from pathlib import Path
import torch
from study.common import files
from study.nnunet.batches import Item
from study.curriculum.schemes import named_axes
from study.nnunet.datasets import data_paths, find_dataset
from study.store.specification import TrainingSettings
from study.search.trials import make_spec, prepared_lookup
from study.nnunet.training_job import TrainingJob
from study.nnunet.trainer import nnUNetTrainerPGPS

torch.set_num_threads(1)
paths, (name, scheme) = data_paths(Path(sys.argv[1])), sys.argv[2:4]
plan, split = prepared_lookup(paths)(name, None, "3d_fullres", 0)
spec = make_spec(plan=plan, split_sha256=split, fold=0, seed=0, scheme=scheme, axes=named_axes(scheme),
                 training=TrainingSettings(epochs=10))
dataset = find_dataset(paths, name)
document = {**files.read_json(dataset.folder / f"{spec.plans}.json"), "continue_training": False}
trainer = nnUNetTrainerPGPS(document, spec.configuration, 0, dataset.description, torch.device("cpu"))
trainer.attach(TrainingJob(curriculum=spec.curriculum, settings=spec.training, seed=0))
trainer.initialize()
batches, stages = trainer.make_batches(), spec.curriculum.stages
ends = (stages[0], stages[-1])
print("stages", *(f"{'x'.join(map(str, s.patch_size))}:{s.batch_size}:{s.first_iteration}" for s in ends))
for line in sys.stdin:
    started = time.process_time()
    batch = batches[Item(index=int(line))]
    spent = time.process_time() - started
    target = batch["target"]
    digest = hashlib.sha256()
    for tensor in (batch["data"], *(target if isinstance(target, list) else [target])):
        digest.update(torch.as_tensor(tensor).contiguous().numpy().tobytes())
    print(1000 * spent, digest.hexdigest(), flush=True)
"""


def main() -> None:
    """Compare the two checkouts of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with prepared data")
    parser.add_argument("--dataset", required=True, metavar="ID|NAME")
    parser.add_argument("--scheme", default="pgps")
    parser.add_argument("--batches", type=int, default=25, metavar="N", help="of each stage (default: 25)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as results:
        sides = [_Side(checkout, args, results) for checkout in (args.before, args.after)]
        for row, stage in enumerate(sides[0].stages):
            if sides[1].stages[row] != stage:
                sys.exit(f"the checkouts have other stages: {stage} and {sides[1].stages[row]}")
            print(json.dumps(_compared(sides, stage, args.batches)), flush=True)


class _Side:
    """A process that draws batches with one checkout's code."""

    def __init__(self, checkout: Path, args: argparse.Namespace, results: str) -> None:
        data = args.data.resolve()
        environment = {**os.environ, "PYTHONPATH": str(checkout.resolve()), "nnUNet_results": results}
        environment["nnUNet_preprocessed"] = str(data / "nnUNet_preprocessed")
        command = [sys.executable, "-c", DRAW, str(data), args.dataset, args.scheme]
        self._process = subprocess.Popen(
            command, env=environment, cwd=results, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while not (said := self._read()).startswith("stages "):
            pass
        self.stages = said.split()[1:]

    def draw(self, index: int) -> tuple[float, str]:
        """(milliseconds of process time, digest) of a batch."""
        if self._process.stdin:
            print(index, file=self._process.stdin, flush=True)
        milliseconds, digest = self._read().split()
        return float(milliseconds), digest

    def _read(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout else ""
        return line or sys.exit("a checkout's process ended; what it said is above")


def _compared(sides: list[_Side], stage: str, count: int) -> dict[str, object]:
    patch, batch, first = stage.split(":")
    rows = [[side.draw(index) for side in sides] for index in range(int(first), int(first) + count)]
    # The first batch of a stage makes what the others use.
    before, after = (median(row[side][0] for row in rows[1:]) for side in (0, 1))
    return {
        "patch": patch,
        "batch": int(batch),
        "before_ms": round(before, 1),
        "after_ms": round(after, 1),
        "ratio": round(after / before, 2),
        "batches": count - 1,
        "equal": all(row[0][1] == row[1][1] for row in rows),
    }


if __name__ == "__main__":
    main()
