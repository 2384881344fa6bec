"""`calibrate`: what is timed on this machine, where it is found again, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prepared import CUBE, NAME
from test_preview import HARDWARE, calibration, spec_of, timing

from study.__main__ import main
from study.common.errors import InvalidInputError
from study.nnunet.datasets import data_paths, find_dataset
from study.run.calibrate import farthest_first
from study.store.calibration import found_beside, network_of, read_calibration, usual_path
from study.store.taken import voxels_of


def test_what_there_is_no_time_for_lies_between_what_was_timed() -> None:
    order = farthest_first([((8 * n, 8, 8), batch) for n in (1, 2, 3, 5, 8, 13) for batch in (1, 2)])
    voxels = [voxels_of(shape) for shape in order]
    assert voxels[:2] == [min(voxels), max(voxels)]
    assert math.log(voxels[2]) == pytest.approx(math.log(voxels[0] * voxels[1]) / 2, abs=0.3)
    assert len(order) == len(set(order)) == 12
    assert farthest_first(order[:1]) == order[:1]


def test_a_calibration_is_found_beside_the_data_and_a_damaged_one_is_passed_by(tmp_path: Path) -> None:
    spec = spec_of("pgps", 1.0)
    made = calibration(spec)
    path = usual_path(tmp_path, network_of(spec), HARDWARE)
    made.write(path)
    usual_path(tmp_path, network_of(spec), "other").write_text("{")
    assert list(found_beside(tmp_path)) == [made] == [read_calibration(path)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "EOF while parsing"),
        ("[]", "it is no JSON object"),
        ('{"format": 1}', "network is missing"),
        (None, "No such file"),
        ({"format": 2}, "format: received 2"),
        ({"took_seconds": "90"}, "took_seconds: received '90'"),
        ({"shapes": [{"patch_size": [8], "batch_size": 0}]}, "shapes.0"),
        ({"shapes": []}, "shapes: received "),
        ({"setup": {**timing(1.0), "low_seconds": 2.0}}, "low, median, high seconds: received "),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_line(tmp_path: Path, content: object, reason: str) -> None:
    path = tmp_path / "calibration.json"
    if isinstance(content, dict):
        calibration(spec_of("cps", 1.0)).write(path)
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
    elif content is not None:
        path.write_text(str(content))
    with pytest.raises(
        InvalidInputError, match=f"legal is a study, or a file that `calibrate` wrote .*{reason}"
    ) as error:
        read_calibration(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seconds", "0"], "error: --seconds: received 0"),
        (["--seconds", "nan"], "error: --seconds: received"),
        (["--out", "/dev"], "error: --out: received '/dev', legal is a file that can be written"),
        (["--out", "/dev/null/x"], "error: --out: received '/dev/null/x', legal is a file that can be written"),
        (["--device", "cuda"], "error: device: received 'cuda', but torch"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_timed(
    data: Path, options: list[str], said: str, refused: Callable[..., str]
) -> None:
    assert refused("calibrate", "--data", data, "--dataset", NAME, "--plans", CUBE, *options).startswith(said)


@pytest.mark.cluster
def test_sizes_are_timed_by_real_work_and_a_dry_run_finds_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, space = shutil.copytree(data, tmp_path / "data"), tmp_path / "space.yaml"
    space.write_text(
        f"name: s\nsearcher: grid\nplans: {CUBE}\ncurriculum: {{scheme: [cps, pgps]}}\n"
        "resources: {cpus: 1, gpus: 0}\n"
        "training: {epochs: 2, iterations_per_epoch: 8, validation_batches: 1, test_time_mirroring: false}\n"
    )
    words = [str(space), "--data", str(own), "--dataset", NAME]
    assert main(["run", *words, "--dry-run"]) == 0
    assert "no costs are told: costs: received 'none'" in capsys.readouterr().out
    assert main(["calibrate", *words, "--seconds", "20"]) == 0
    (found,) = found_beside(find_dataset(data_paths(own), NAME).folder)
    timed = {(shape.patch_size, shape.batch_size): shape for shape in found.shapes}
    assert all(shape.low_seconds <= shape.seconds <= shape.high_seconds for shape in found.shapes)
    small, large = min(timed, key=voxels_of), max(timed, key=voxels_of)
    assert timed[small].seconds < timed[large].seconds
    assert all(shape.energy_kwh and shape.peak_memory_bytes is None for shape in found.shapes)
    capsys.readouterr()
    assert main(["run", *words, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "cost: about 0:00:" in printed and "by a calibration (one training alone on the machine) on cpu" in printed
    assert main(["run", *words, "--dry-run", "--cpus", "2", "--costs-from", str(space)]) == 2
