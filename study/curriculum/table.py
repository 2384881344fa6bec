"""A resolved curriculum for people and for programs, as `plan`, `run --dry-run` and the start of a trial show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from study.curriculum.curriculum import Curriculum, available_sizes
from study.curriculum.data_curriculum import DataCurriculum
from study.curriculum.schemes import Axes

if TYPE_CHECKING:
    from rich.table import Table


def curriculum_as_json(curriculum: Curriculum, axes: Axes) -> dict[str, Any]:
    """The stage table as plain JSON; `notes` are what `shortfalls` finds."""
    return {
        "stages": [
            {
                "patch_size": list(stage.patch_size),
                "batch_size": stage.batch_size,
                "crops_per_volume": stage.crops_per_volume,
                "first_iteration": stage.first_iteration,
                "iterations": stage.iterations,
                "voxels_per_iteration": stage.voxels_per_iteration,
            }
            for stage in curriculum.stages
        ],
        "voxel_share": curriculum.voxel_share,
        "voxels": curriculum.voxels,
        "total_iterations": curriculum.total_iterations,
        "random_draws": curriculum.random_draws,
        "notes": shortfalls(curriculum, axes),
    }


def rich_table(curriculum: Curriculum, rates: Sequence[tuple[float, float]] = ()) -> Table:
    """The stage table for a terminal, one row per stage; patch sizes in plan axis order.

    Args:
        curriculum: whose stages.
        rates: first and last learning rate of each stage, to be shown in place of voxels.
    """
    from rich import box
    from rich.table import Table

    crops = any(stage.crops_per_volume > 1 for stage in curriculum.stages)
    first = "first\ndraw" if curriculum.random_draws else "first\niteration"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    of_crops = ["crops per\nvolume"] if crops else []
    last = "learning rate,\nfirst and last" if rates else "voxels per\niteration"
    for name in ("stage", "patch size", "batch\nsize", *of_crops, first, "iterations", last):
        table.add_column(name, justify="right", no_wrap=True)
    for index, stage in enumerate(curriculum.stages):
        table.add_row(
            str(index + 1),
            size_text(stage.patch_size),
            str(stage.batch_size),
            *([str(stage.crops_per_volume)] if crops else []),
            str(stage.first_iteration) if stage.iterations else "-",
            str(stage.iterations),
            "{:.2g} {:.2g}".format(*rates[index]) if rates else f"{stage.voxels_per_iteration:,}",
        )
    return table


def summary(curriculum: Curriculum) -> str:
    """Length and voxel share in one line."""
    order = ", each drawing its stage at random" if curriculum.random_draws else ""
    return (
        f"{curriculum.total_iterations} iterations{order}; "
        f"{curriculum.voxels:.4g} voxels, {100 * curriculum.voxel_share:.2f} % of constant patch size (CPS)"
    )


def data_words(axes: Axes, data: DataCurriculum) -> str:
    """Which cases come first, in one line."""
    cases = _counted(len(data.cases), "training case")
    return f"{cases}, most dissimilar by {axes.pdl_metric}, before iteration {data.until_iteration}; then all"


def first_phase_words(axes: Axes, until_iteration: int) -> str:
    """The same before the cases are known."""
    share = f"{100 * axes.pdl_fraction:g} % of the training cases"
    return f"{share}, most dissimilar by {axes.pdl_metric}, before iteration {until_iteration}; then all"


def shortfalls(curriculum: Curriculum, axes: Axes) -> list[str]:
    """Where the table is less than the axes asked for, one line per reason; empty when it is not."""
    available = len(available_sizes(curriculum.geometry, axes))
    wanted = min(axes.stages or available, available)
    undrawn = sum(stage.iterations == 0 for stage in curriculum.stages)
    notes = []
    if axes.stages and axes.stages > available:
        notes.append(f"{axes.stages} stages asked for, {_counted(available, 'patch size')} possible here: all are used")
    cycles = axes.cycles if axes.order == "cyclic" and wanted > 1 else 1
    if len(curriculum.stages) < cycles * wanted:
        scarce = "epochs" if axes.allocation == "reference" else "iterations"
        notes.append(f"{cycles * wanted} stages need as many {scarce}: merged to {len(curriculum.stages)}")
    if undrawn:
        notes.append(f"{_counted(undrawn, 'stage')} of {len(curriculum.stages)} never drawn in so few iterations")
    batch = curriculum.geometry.batch_size
    if axes.batch_growth and len(curriculum.stages) > 1 and all(s.batch_size <= batch for s in curriculum.stages):
        notes.append(f"the plan's batch of {batch} leaves no stage a larger one: this is constant batch size")
    return notes


def size_text(size: Sequence[int]) -> str:
    """Voxels per axis as `64x32x32`."""
    return "x".join(str(voxels) for voxels in size)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
