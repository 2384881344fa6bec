"""How long a training will take, before it starts: on a CPU by a step of the middle stage, on a copy of the network.

Rough by a factor of two: small patches take more time per voxel than large ones, and making batches is left out. On a
GPU a first step says nothing of later ones, which are captured or compiled, so only the work is told.
"""

from __future__ import annotations

import copy
import time
from typing import Any

from study.curriculum import Curriculum
from study.terminal import time_left

LONG_SECONDS = 24 * 3600.0
FOR_A_CPU = "--optimizer adamw --epochs 10 --iterations-per-epoch 40 --validation-batches 2 --no-mirroring"


def training_seconds(trainer: Any, curriculum: Curriculum, iteration: int) -> float:
    """Seconds from an iteration to the end of a training; changes neither the trainer nor a random state."""
    import torch

    stage = curriculum.stages[len(curriculum.stages) // 2]
    network = copy.deepcopy(trainer.network)
    batch = torch.zeros(stage.batch_size, trainer.num_input_channels, *stage.patch_size, device=trainer.device)
    started = time.perf_counter()
    outputs = network(batch)
    sum(output.mean() for output in (outputs if isinstance(outputs, list | tuple) else [outputs])).backward()
    per_voxel = (time.perf_counter() - started) / stage.voxels_per_iteration
    return per_voxel * curriculum.voxels * (1 - iteration / curriculum.total_iterations)


def words(seconds: float) -> str:
    """The forecast as a sentence, with a warning where it is days."""
    told = f"the training takes about {time_left(seconds)} here (h:mm:ss, by one step of its middle stage)"
    return f"{told}: use a GPU, or train less, such as {FOR_A_CPU}" if seconds > LONG_SECONDS else told


def unknown(curriculum: Curriculum, iteration: int) -> str:
    """What is known of a training whose time is not, as a sentence."""
    stages = f"{len(curriculum.stages)} stage{'' if len(curriculum.stages) == 1 else 's'}"
    return (
        f"{curriculum.total_iterations - iteration} iterations to go, {stages}, {curriculum.voxel_share:.0%} of the "
        "voxels of constant patch size in all; how long that takes on this GPU is not known before it trains: the time "
        "left is shown from then on, and `python -m study bench gpu` measures each stage"
    )
