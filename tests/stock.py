"""Stock nnU-Net without this project: a venv that sees the libraries of this one, and not the checkout."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

# Each line of words is a command of nnU-Net's, by the function that its name stands for.
_DRIVER = """
import importlib, sys

def main():
    for words in {commands!r}:
        module, function, *sys.argv = words
        getattr(importlib.import_module(module), function)()

if __name__ == "__main__":
    main()
"""
TRAIN = ("nnunetv2.run.run_training", "run_training_entry", "nnUNetv2_train")
INSTALL = ("nnunetv2.model_sharing.entry_points", "install_from_zip_entry_point")
PREDICT = ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point")
FIND_BEST = ("nnunetv2.evaluation.find_best_configuration", "find_best_configuration_entry_point")
ENSEMBLE = ("nnunetv2.ensembling.ensemble", "entry_point_ensemble_folders")


def stock_python(folder: Path) -> Path:
    """The Python of the venv, made in a folder; no module of `study` is found in it."""
    venv.create(folder, with_pip=False)
    (site,) = (folder / "lib").glob("python*/site-packages")
    # Paths named in a .pth file within that folder are not followed, so an editable installation is not seen.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def run_stock(python: Path, folder: Path, variables: Mapping[str, Path | str], *commands: tuple[str, ...]) -> str:
    """Run stock commands one after another in one process; what they print.

    Args:
        python: see `stock_python`.
        folder: an absent or empty one, to run in.
        variables: of nnU-Net's, and others that are to be set.
        commands: module, function, name of the command and its words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "driver.py"
    script.write_text(_DRIVER.format(commands=[list(map(str, words)) for words in commands]), encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    environment |= {"nnUNet_def_n_proc": "1", **{name: str(path) for name, path in variables.items()}}
    done = subprocess.run([python, script], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def imports(python: Path, module: str) -> bool:
    """Whether that Python finds a module."""
    command = [python, "-c", f"import {module}"]
    return subprocess.run(command, cwd=python.parent, env={}, capture_output=True, check=False).returncode == 0
