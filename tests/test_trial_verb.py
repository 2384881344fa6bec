"""`python -m study trial` as a shell sees it: stopped, resumed, asked again, predicted with, and given nonsense."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from examples import EPOCH
from prepared import CUBE, NAME, NUMBER, final_weights, model_folder, once, spec_of, train, workplace

from study.__main__ import main
from study.cli import trial as trial_progress
from study.cli.trial import TerminalProgress, as_json
from study.common.terminal import output_to
from study.nnunet.datasets import data_paths, find_dataset
from study.nnunet.training_job import IterationReport
from study.run.meter import carbon_intensity_kg_per_kwh
from study.run.trial import finished_trial, run_trial
from study.store.ledger import Ledger
from study.store.records import Phase
from study.store.trial_folder import TrialFolder

PROMISED = {
    "dice",
    "dice_per_case",
    "runtime_seconds",
    "energy_kwh",
    "co2_kg",
    "voxels",
    "voxel_share",
    "weights_sha256",
}
PUE = 1.2
TRAINING = {"iterations_per_epoch": 16}
DEADLINE_SECONDS = 240


def words_of(data: Path, out: Path) -> list[str]:
    """A short trial as one types it."""
    text = (
        f"trial --dataset {NUMBER} --plans {CUBE} --scheme pgps --optimizer adamw --epochs 3 --iterations-per-epoch 16 "
        f"--validation-batches 2 --no-mirroring --device cpu --cpus 1 --data-workers 1 --country FRA --pue {PUE}"
    )
    return [*text.split(), "--data", str(data), "--out", str(out)]


def shell(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "study", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options)


@pytest.fixture(scope="session")
def interrupted_then_finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study in `out` and what the two calls of the verb that trained it printed."""
    return once(tmp_path_factory, "trial_of_the_verb", lambda folder: _interrupt_then_finish(data, folder))


def _interrupt_then_finish(data: Path, folder: Path) -> None:
    words = words_of(data, folder / "out")
    with (folder / "first.out").open("w") as out, (folder / "first.err").open("w") as err:
        command = [sys.executable, "-m", "study", *words]
        (folder / "tmp").mkdir()
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(folder / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            _wait_until_training(process, folder / "out")
            # What a terminal does at Ctrl-C: every process of the group gets it, the data worker too.
            os.killpg(process.pid, signal.SIGINT)
            (folder / "first.rc").write_text(str(process.wait(DEADLINE_SECONDS)))
        finally:
            process.kill()
    second = shell([*words, "--json"])
    (folder / "second.out").write_text(second.stdout)
    (folder / "second.err").write_text(second.stderr)
    (folder / "second.rc").write_text(str(second.returncode))


def _wait_until_training(process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if any('"training"' in path.read_text() for path in out.glob("trials/*/costs.jsonl")):
            return
        time.sleep(0.01)
    pytest.fail("the trial did not begin to train")


@pytest.fixture
def folder(interrupted_then_finished: Path) -> TrialFolder:
    (trial,) = Ledger.open(interrupted_then_finished / "out").trials()
    return trial


@pytest.fixture
def answer(interrupted_then_finished: Path) -> dict[str, Any]:
    printed: dict[str, Any] = json.loads((interrupted_then_finished / "second.out").read_text())
    return printed


def test_ctrl_c_keeps_the_work_and_the_same_command_resumes(
    interrupted_then_finished: Path, folder: TrialFolder, answer: dict[str, Any]
) -> None:
    printed = {name: (interrupted_then_finished / name).read_text() for name in ("first.rc", "first.out", "first.err")}
    assert (printed["first.rc"], printed["first.out"]) == ("130", "")
    assert "Traceback" not in printed["first.err"]
    last = printed["first.err"].splitlines()[-1]
    assert last.startswith("stopped after iteration ")
    assert last.endswith(" of 48; the same command resumes")
    first, second = folder.attempts()
    reached = int(last.split()[3])
    assert (first.resumed_from_iteration, second.resumed_from_iteration) == (0, reached)
    assert 0 < reached < 48
    assert (first.data_workers, first.device, first.cpus) == (1, "cpu", 1)
    assert answer["waste"]["seconds"] == 0
    assert f"resuming at iteration {reached} of 48" in (interrupted_then_finished / "second.err").read_text()
    assert list((interrupted_then_finished / "tmp").glob("pymp-*")) == [], "data workers left their sockets"


def test_json_has_what_was_promised(
    interrupted_then_finished: Path, folder: TrialFolder, answer: dict[str, Any], data: Path
) -> None:
    assert (interrupted_then_finished / "second.rc").read_text() == "0"
    assert (interrupted_then_finished / "second.out").read_text().count("\n") == 1
    assert set(answer) >= PROMISED
    spec = folder.spec()
    assert spec == spec_of(data_paths(data), training=TRAINING)
    summary = json.loads((model_folder(folder) / "validation" / "summary.json").read_text())
    assert answer["dice"] == summary["foreground_mean"]["Dice"]
    assert set(answer["dice_per_case"]) == set(find_dataset(data_paths(data), NAME).split(0).validation)
    assert np.mean(list(answer["dice_per_case"].values())) == pytest.approx(answer["dice"])
    assert (answer["voxels"], answer["voxel_share"]) == (spec.curriculum.voxels, spec.curriculum.voxel_share)
    assert 0 < answer["voxel_share"] < 0.5
    phases = answer["seconds_by_phase"]
    assert answer["runtime_seconds"] == pytest.approx(phases["training"] + phases["online_validation"])
    assert answer["total"]["seconds"] == pytest.approx(sum(phases.values()))
    assert all(seconds > 0 for seconds in phases.values())
    assert 0 < answer["energy_kwh"] < answer["total"]["energy_kwh"]
    assert answer["co2_kg"] == pytest.approx(answer["energy_kwh"] * carbon_intensity_kg_per_kwh("FRA") * PUE)
    assert len(answer["attempts"]) == 2


def test_the_weights_are_those_of_an_uninterrupted_training(folder: TrialFolder, data: Path, tmp_path: Path) -> None:
    paths = data_paths(data)
    whole = train(spec_of(paths, training=TRAINING), Ledger.create(tmp_path / "study"), workplace(paths))
    assert whole.trial_id == folder.trial_id
    assert final_weights(folder) == final_weights(whole)
    assert [r.pseudo_dice for r in folder.epochs()] == [r.pseudo_dice for r in whole.epochs()]


def times_of_files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_finished_trial_is_read_not_trained(
    interrupted_then_finished: Path,
    folder: TrialFolder,
    answer: dict[str, Any],
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = times_of_files(folder.path)
    words = words_of(data, interrupted_then_finished / "out")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer
    assert main(words) == 0
    text = capsys.readouterr().out
    assert f"trial {folder.trial_id} (pgps) is finished" in text
    assert answer["weights_sha256"] in text
    assert f"{answer['dice']:.4f}" in text
    again = run_trial(folder.spec(), Ledger.open(interrupted_then_finished / "out"), workplace(data_paths(data)))
    assert again == finished_trial(folder)
    assert times_of_files(folder.path) == before
    assert [event["event"] for event in folder.events()] == ["started", "interrupted", "started", "finished"]


def test_the_model_is_a_stock_nnunet_folder(folder: TrialFolder) -> None:
    fold = model_folder(folder)
    assert fold.parent.name == f"nnUNetTrainerPGPS__{CUBE}__3d_fullres"
    assert {path.name for path in fold.glob("*.pth")} == {"checkpoint_final.pth"}
    for path in (fold.parent / "plans.json", fold.parent / "dataset.json", fold / "validation" / "summary.json"):
        assert json.loads(path.read_text())


@pytest.mark.cluster
@pytest.mark.parametrize("mirroring", [False, True])
def test_the_printed_command_of_stock_nnunet_gives_the_trials_dice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirroring: bool
) -> None:
    paths = data_paths(data)
    assert paths.raw is not None
    # Enough to tell the classes apart, so that settings other than the validation's show in the Dice.
    spec = spec_of(paths, training={"test_time_mirroring": mirroring, "iterations_per_epoch": 30})
    trial = run_trial(spec, Ledger.create(tmp_path / "s"), workplace(paths))
    printed = as_json(trial)["predict"]
    assert ("--disable_tta" in printed) is not mirroring
    (tmp_path / "in").mkdir()
    for case in trial.result.dice_per_case:
        image = paths.raw / NAME / "imagesTr" / f"{case}_0000.nii.gz"
        (tmp_path / "in" / image.name).symlink_to(image)
    for name in [name for name in os.environ if name.startswith("nnUNet_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = printed.replace(" INPUT ", f" {tmp_path}/in ").replace(" OUTPUT ", f" {tmp_path}/out ")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    by_class = {label: [] for label in ("1", "2")}
    for case in trial.result.dice_per_case:
        made, true = (
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")))
            for folder in (tmp_path / "out", paths.raw / NAME / "labelsTr")
        )
        for label, values in by_class.items():
            mine, theirs = made == int(label), true == int(label)
            values.append(2 * np.sum(mine & theirs) / (np.sum(mine) + np.sum(theirs)))
    assert trial.result.dice > 0.1
    assert np.mean([np.mean(values) for values in by_class.values()]) == pytest.approx(trial.result.dice, abs=1e-6)


class Screen(io.StringIO):
    """A file that is a terminal, or is not."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_stage_size_loss_dice_and_time_left(
    data: Path, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    now = [100.0]
    monkeypatch.setattr(trial_progress.time, "monotonic", lambda: now[0])
    spec, screen = spec_of(data_paths(data)), Screen(terminal=terminal)
    with TerminalProgress(screen) as progress:
        progress.begin(spec, 0)
        progress.phase(Phase.TRAINING)
        progress.epoch_done(replace(EPOCH, pseudo_dice=0.612))
        # Eleven of 24 iterations, but far less than half of the voxels, in 60 seconds.
        now[0] += 60
        progress.iteration_done(
            IterationReport(iteration=10, stage=4, loss=0.1234, fetch_seconds=0.1, step_seconds=0.2)
        )
        progress.phase(Phase.FINAL_VALIDATION)
    shown = screen.getvalue()
    stage = spec.curriculum.stages[4]
    voxels = [spec.curriculum.stage_at(iteration).voxels_per_iteration for iteration in range(24)]
    left = round(60 * sum(voxels[11:]) / sum(voxels[:11]))
    assert left > 120
    size = "x".join(str(n) for n in stage.patch_size)
    text = f"stage 5/9  {size} x2  loss 0.123  pseudo Dice 0.612  left 0:{left // 60:02d}:{left % 60:02d}"
    assert text in shown
    assert "11/24" in shown
    assert "final validation" in shown
    assert ("\x1b[" in shown) is terminal


def test_a_trials_output_goes_to_its_log_and_progress_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "trial" / "log.txt"
    for attempt in ("first", "second"):
        with output_to(log) as terminal:
            os.write(1, f"{attempt} from here\n".encode())
            subprocess.run(["sh", "-c", f"echo {attempt} from a child; echo {attempt} complaint >&2"], check=True)
            print(f"{attempt} progress", file=terminal, flush=True)
        os.write(1, b"after\n")
    assert capfd.readouterr() == ("after\nafter\n", "first progress\nsecond progress\n")
    assert sorted(log.read_text().splitlines()) == sorted(
        f"{attempt} {text}" for attempt in ("first", "second") for text in ("from here", "from a child", "complaint")
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--dataset 77", "dataset: received '77', found Dataset901_Phantom in"),
        ("--dataset Dataset901", "dataset: received 'Dataset901', found Dataset901_Phantom in"),
        ("--plans nnUNetPlans", "plans: received 'nnUNetPlans', legal for Dataset901_Phantom is one of CubePlans, "),
        ("--configuration 3d_lowres", "configuration: received '3d_lowres', legal is one of 3d_fullres"),
        ("--fold 7", "fold: received 7, legal is 0 to 4"),
        ("--fold -1", "fold: received -1, legal is 0 to 4"),
        (f"--seed {2**63}", f"seed: received {2**63}, legal is a whole number from 0 to {2**63 - 1}"),
        ("--fold all", "fold: received 'all', legal is a whole number"),
        ("--country FR", "energy.country: received 'FR', legal is a three-letter ISO 3166 code"),
        ("--country QQQ", "country: received 'QQQ', legal is a three-letter country code"),
        ("--pue 0.5", "energy.pue: received 0.5, legal is a number from 1 to 10"),
        ("--meter watts", "energy.meter: received 'watts', legal is one of codecarbon, none"),
        ("--device tpu", "device: received 'tpu', legal is one of auto, cpu, cuda"),
        ("--cpus 0", "cpus: received 0.0, legal is a number above 0"),
        ("--cpus many", "cpus: received 'many', legal is a number above 0"),
        ("--data-workers -1", "data_workers: received -1, legal is a whole number from 0"),
        ("--data-workers few", "data_workers: received 'few', legal is a whole number from 0"),
    ],
)
def test_nonsense_is_refused_in_one_line(
    data: Path, tmp_path: Path, refused: Callable[..., str], given: str, said: str
) -> None:
    assert refused(*words_of(data, tmp_path / "out"), *given.split()).startswith(f"error: {said}")
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit_are_refused(
    data: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("precious")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "study.json").write_text('{"schema": 99}')
    for out, said in (("file/out", "cannot write to"), ("foreign", "holds other files"), ("newer", "ledger schema 99")):
        assert said in refused(*words_of(data, tmp_path / out))
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["thesis.tex"]

    words = words_of(tmp_path / "nowhere", tmp_path / "out")
    assert "dataset: received '901', found nothing in" in refused(*words)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    at = words.index("--data")
    assert "give --data DIR or set nnUNet_preprocessed" in refused(*words[:at], *words[at + 2 :])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_the_way_without_is_named(data: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused(*words_of(data, tmp_path / "out"), "--device", "cuda")
    assert said.startswith("error: device: received 'cuda', but torch ") and "use --device cpu" in said
    assert not (tmp_path / "out").exists()
