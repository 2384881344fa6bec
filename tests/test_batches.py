"""Batches by index: the same however they are reached, of the size their stage says, and in nnU-Net's form."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform, blur_dimension
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.configuration import ANISO_THRESHOLD
from prepared import CUBE, CUBE_PATCH, FLAT, FLAT_2D, FLAT_PATCH, FULL, MakeTrainer, plans_document
from torch.nn.functional import interpolate

from study.curriculum.chain import Geometry
from study.curriculum.curriculum import ALTERNATING, Curriculum, VolumeRule, resolve
from study.curriculum.schemes import named_axes
from study.nnunet.batches import Batch, Batches, Cases, Item, Schedule, StageLoader
from study.nnunet.feed import Feed
from study.nnunet.trainer import nnUNetTrainerPGPS
from study.nnunet.transforms import EveryNth, RepeatableBlur, ReplacedLabel, replaced, rotated


def same(one: Batch, other: Batch) -> bool:
    targets = zip(one["target"], other["target"], strict=True)
    return (
        one["keys"] == other["keys"]
        and torch.equal(one["data"], other["data"])
        and all(torch.equal(a, b) for a, b in targets)
    )


def first_items(curriculum: Curriculum) -> Iterator[tuple[Any, Item]]:
    """Every stage with the item of its first iteration."""
    for stage in curriculum.stages:
        yield stage, Item(index=stage.first_iteration)


@pytest.mark.parametrize("scheme", ["pgps", "rpss"])
def test_a_batch_is_the_same_in_any_order_and_from_any_process(make_trainer: MakeTrainer, scheme: str) -> None:
    trainer = make_trainer(scheme)
    length = {"epochs": 3, "iterations_per_epoch": 8, "validation_every_epochs": 2, "validation_batches": 2}
    schedule = Schedule(start_epoch=0, start_iteration=0, **length)
    items = list(schedule)
    assert len(items) == 24 + 2 * 2

    in_order = list(Feed(trainer.make_batches(), schedule, workers=0))
    by_workers = list(Feed(trainer.make_batches(), schedule, workers=2))
    backwards = trainer.make_batches()
    for item, one, other in reversed(list(zip(items, in_order, by_workers, strict=True))):
        assert same(one, other)
        assert same(one, backwards[item])


def test_batches_differ_by_index_and_by_seed(make_trainer: MakeTrainer) -> None:
    batches, others = make_trainer("cps").make_batches(), make_trainer("cps", seed=1).make_batches()
    drawn = [batches[Item(index=index)] for index in range(6)]
    assert not any(same(drawn[i], drawn[j]) for i in range(6) for j in range(i))
    assert not any(same(one, others[Item(index=index)]) for index, one in enumerate(drawn))
    keys = {key for batch in drawn for key in batch["keys"]}
    assert len(keys) > 2
    assert keys <= set(make_trainer("cps").do_split()[0]), "training cases"


def test_validation_batches_depend_on_their_index_alone(make_trainer: MakeTrainer) -> None:
    trainers = [make_trainer("pgps"), make_trainer("cps", seed=3), make_trainer("performance", seed=1)]
    validation = [[t.make_batches()[Item(index=i, validation=True)] for i in range(3)] for t in trainers]
    for other in validation[1:]:
        assert all(same(a, b) for a, b in zip(validation[0], other, strict=True))
    assert not same(validation[0][0], validation[0][1])
    assert all(batch["data"].shape == (2, 1, *CUBE_PATCH) for batch in validation[0])
    held_out = set(trainers[0].do_split()[1])
    assert {key for batch in validation[0] for key in batch["keys"]} <= held_out


@pytest.mark.parametrize(
    ("scheme", "plans", "configuration"),
    [("pgps", CUBE, FULL), ("performance", CUBE, FULL), ("pgps+", FLAT, FULL), ("pgps", "PlannedPlans", FLAT_2D)],
)
def test_every_stage_has_its_size_at_every_scale(
    make_trainer: MakeTrainer, data: Path, scheme: str, plans: str, configuration: str
) -> None:
    trainer = make_trainer(scheme, plans=plans, configuration=configuration)
    strides = plans_document(data, plans)["configurations"][configuration]["architecture"]["arch_kwargs"]["strides"]
    reductions = np.cumprod(strides, axis=0)[:-1]
    batches, curriculum = trainer.make_batches(), trainer.job.curriculum
    assert len(curriculum.stages) > 3
    for stage, item in first_items(curriculum):
        batch = batches[item]
        assert batch["data"].shape == (stage.batch_size, 1, *stage.patch_size)
        assert batch["data"].dtype == torch.float32
        assert len(batch["target"]) == len(reductions)
        for target, reduction in zip(batch["target"], reductions, strict=True):
            size = tuple(n // r for n, r in zip(stage.patch_size, reduction, strict=True))
            assert target.shape == (stage.batch_size, 1, *size)
            assert set(target.unique().tolist()) <= {0, 1, 2}


# Patch size, rotation in degrees, whether augmented in 2D.
Call = tuple[tuple[int, ...], int, bool]


def recording(calls: list[Call]) -> type[nnUNetTrainerPGPS]:
    """A trainer that notes what its training transforms are made from."""

    class Recording(nnUNetTrainerPGPS):
        @staticmethod
        def get_training_transforms(patch: Any, rotation: Any, scales: Any, axes: Any, flat: Any, **more: Any) -> Any:
            calls.append((tuple(patch), round(math.degrees(rotation[1])), flat))
            return nnUNetTrainerPGPS.get_training_transforms(patch, rotation, scales, axes, flat, **more)

    return Recording


def test_a_flat_patch_keeps_its_2d_augmentation_in_every_stage(make_trainer: MakeTrainer) -> None:
    calls: list[Call] = []
    for plans, patch, degrees, flat in ((FLAT, FLAT_PATCH, 180, True), (CUBE, CUBE_PATCH, 30, False)):
        trainer = make_trainer("pgps", plans=plans, trainer=recording(calls))
        batches, stages = trainer.make_batches(), trainer.job.curriculum.stages
        for _, item in first_items(trainer.job.curriculum):
            batches[item]
        assert calls == [(stage.patch_size, degrees, flat) for stage in stages]
        assert calls[-1][0] == patch
        calls.clear()


def test_the_published_code_decides_augmentation_for_every_stage_anew(make_trainer: MakeTrainer) -> None:
    calls: list[Call] = []
    training = {"augmentation": "per-stage"}
    trainer = make_trainer("efficiency", plans=FLAT, trainer=recording(calls), training=training)
    batches, curriculum = trainer.make_batches(), trainer.job.curriculum
    for _, item in first_items(curriculum):
        batches[item]
    flat = [max(stage.patch_size) / stage.patch_size[0] > 3 for stage in curriculum.stages]
    assert {True, False} == set(flat)
    assert calls == [
        (stage.patch_size, 180 if is_flat else 30, is_flat)
        for stage, is_flat in zip(curriculum.stages, flat, strict=True)
    ]
    # What nnU-Net remembers of the last call is that of the full patch; inference uses it.
    assert tuple(trainer.configuration_manager.patch_size) == FLAT_PATCH
    at_full_patch = make_trainer("efficiency", plans=FLAT).make_batches()
    for index, stage in enumerate(curriculum.stages):
        item = Item(index=stage.first_iteration)
        assert same(batches[item], at_full_patch[item]) is flat[index]


def test_where_decisions_differ_on_the_pancreas_task() -> None:
    pancreas = Geometry(patch_size=(40, 224, 224), divisors=(8, 32, 32), batch_size=2)
    curriculum = resolve(pancreas, named_axes("pgps", allocation="reference"))

    def is_flat(patch_size: tuple[int, ...]) -> bool:
        return max(patch_size) / patch_size[0] > ANISO_THRESHOLD

    differing = sum(s.iterations for s in curriculum.stages if is_flat(s.patch_size) != is_flat(pancreas.patch_size))
    assert differing / curriculum.total_iterations == pytest.approx(0.186)


def test_short_axes_pass_through_the_whole_augmentation(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("pgps", plans=FLAT, training={"epochs": 1, "iterations_per_epoch": 400}, stages=2)
    batches, small = trainer.make_batches(), trainer.job.curriculum.stages[0]
    assert small.patch_size[0] == 2
    # A blur comes to one sample in ten.
    for index in range(60):
        assert batches[Item(index=index)]["data"].isfinite().all()


@pytest.mark.parametrize("flat", [False, True])
def test_no_blur_with_a_stopwatch_is_left(flat: bool) -> None:
    stock = nnUNetTrainerPGPS.get_training_transforms((16, 32, 32), (-0.5, 0.5), [[1, 1, 1]], (0, 1, 2), flat)
    pairs = [(step, replaced(step)) for step in stock.transforms]
    (timed,) = [step.transform.benchmark for step, _ in pairs if isinstance(inside(step), GaussianBlurTransform)]
    assert timed
    assert {type(inside(theirs)): type(inside(ours)) for theirs, ours in pairs if theirs is not ours} == {
        GaussianBlurTransform: RepeatableBlur,
        RemoveLabelTransform: ReplacedLabel,
        DownsampleSegForDSTransform: EveryNth,
    }


def inside(step: Any) -> Any:
    return getattr(step, "transform", step)


@pytest.mark.parametrize("voxels", [1, 2, 3, 9])
def test_the_blur_is_nnunets_convolution_and_leaves_axes_shorter_than_its_kernel(voxels: int) -> None:
    image, transform = torch.rand(1, voxels, 12, 15), RepeatableBlur(blur_sigma=1.0, benchmark=True)
    expected = image
    for axis in range(int(voxels < 4), 3):
        expected = blur_dimension(expected, 1.0, axis, force_use_fft=False)
    assert torch.equal(transform(image=image.clone())["image"], expected)
    assert transform.benchmark_use_fft == {}
    if voxels < 4:
        with pytest.raises(RuntimeError, match=r"[Pp]adding"):
            GaussianBlurTransform(blur_sigma=1.0, benchmark=True)(image=image.clone())


class Counting:
    """A dataset that counts the cases it opens."""

    def __init__(self, dataset: Any) -> None:
        self.identifiers = dataset.identifiers
        self.opened: list[str] = []
        self._dataset = dataset

    def load_case(self, case: str) -> Any:
        self.opened.append(case)
        return self._dataset.load_case(case)


def stage_loader(
    trainer: nnUNetTrainerPGPS, cases: Any, batch: int, crops: int, share: float, rule: VolumeRule = ALTERNATING
) -> StageLoader:
    return StageLoader(
        Cases(cases),
        batch,
        (16, 16, 16),
        (16, 16, 16),
        trainer.label_manager,
        oversample_foreground_percent=share,
        transforms=None,
        crops_per_volume=crops,
        volume_rule=rule,
    )


@pytest.mark.parametrize(("batch", "crops"), [(7, 3), (8, 4), (5, 5), (4, 1)])
def test_a_batch_opens_one_volume_for_so_many_crops(make_trainer: MakeTrainer, batch: int, crops: int) -> None:
    trainer = make_trainer()
    cases = Counting(trainer.get_tr_and_val_datasets()[0])
    loader = stage_loader(trainer, cases, batch, crops, 0.5)
    np.random.seed(0)
    for _ in range(5):
        cases.opened.clear()
        drawn = loader.generate_train_batch()
        assert drawn["data"].shape == (batch, 1, 16, 16, 16)
        assert len(drawn["keys"]) == batch
        assert len(cases.opened) <= math.ceil(batch / crops)
        assert len(set(drawn["keys"])) <= math.ceil(batch / crops)
        assert set(cases.opened) <= set(drawn["keys"])
        assert not torch.equal(drawn["data"][0], drawn["data"][1])
    foreground = stage_loader(trainer, cases, 40, 4, 1.0).generate_train_batch()["target"]
    assert all((sample > 0).any() for sample in foreground)


def test_the_performance_scheme_opens_about_a_plan_batch_of_volumes(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("performance")
    batches, curriculum = trainer.make_batches(), trainer.job.curriculum
    assert max(stage.crops_per_volume for stage in curriculum.stages) > 10
    for stage, item in first_items(curriculum):
        keys = batches[item]["keys"]
        assert len(keys) == stage.batch_size
        assert len(set(keys)) <= math.ceil(stage.batch_size / stage.crops_per_volume) <= 2


@pytest.mark.parametrize(
    ("rule", "batch", "crops", "share", "kinds"),
    [
        # The follow-up's: floor(n/2) of n volumes, random first.
        ("alternating", 12, 3, 0.5, "...fff...fff"),
        ("alternating", 7, 3, 0.5, "...fff."),
        ("alternating", 3, 3, 0.5, "..."),
        ("alternating", 10, 2, 0.5, "..ff..ff.."),
        ("alternating", 18, 2, 0.5, "..ff..ff..ff..ff.."),
        ("alternating", 8, 2, 0.25, "......ff"),
        ("alternating", 9, 3, 1.0, "fffffffff"),
        ("alternating", 8, 4, 0.0, "........"),
        # That of trials specified before.
        ("rounded", 7, 3, 0.5, "......f"),
        ("rounded", 10, 2, 0.5, "..ff..ffff"),
        ("rounded", 8, 4, 0.33, "....ffff"),
        # nnU-Net's own where every volume gives one crop.
        ("alternating", 4, 1, 0.5, "..ff"),
        ("alternating", 2, 1, 0.33, ".f"),
    ],
)
def test_random_and_foreground_volumes_alternate(
    make_trainer: MakeTrainer, rule: VolumeRule, batch: int, crops: int, share: float, kinds: str
) -> None:
    trainer = make_trainer()
    loader = stage_loader(trainer, trainer.get_tr_and_val_datasets()[0], batch, crops, share, rule)
    assert "".join("f" if loader.get_do_oversample(sample) else "." for sample in range(batch)) == kinds


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, int]:
    names = ("epochs", "iterations_per_epoch", "validation_every_epochs", "validation_batches")
    return {name: draw(st.integers(1, 6)) for name in names}


@given(schedules())
def test_validation_follows_its_epochs_and_the_last(length: dict[str, int]) -> None:
    schedule = Schedule(start_epoch=0, start_iteration=0, **length)
    items = list(schedule)
    training = [item.index for item in items if not item.validation]
    assert training == list(range(length["epochs"] * length["iterations_per_epoch"]))
    for epoch in range(length["epochs"]):
        due = (epoch + 1) % length["validation_every_epochs"] == 0 or epoch == length["epochs"] - 1
        assert schedule.validates(epoch) is due
        end = items.index(Item(index=(epoch + 1) * length["iterations_per_epoch"] - 1))
        following = items[end + 1 : end + 1 + length["validation_batches"]]
        fixed = [Item(index=index, validation=True) for index in range(length["validation_batches"])]
        assert (following == fixed) is due
    evaluations = sum(schedule.validates(epoch) for epoch in range(length["epochs"]))
    assert len(items) == len(training) + evaluations * length["validation_batches"]


@given(schedules(), st.data())
def test_a_schedule_goes_on_from_any_iteration(length: dict[str, int], data: st.DataObject) -> None:
    items = list(Schedule(start_epoch=0, start_iteration=0, **length))
    per_epoch = length["iterations_per_epoch"]
    done = data.draw(st.integers(0, length["epochs"] * per_epoch))
    # After the last iteration of an epoch its validation may be missing or done.
    validated = data.draw(st.booleans()) if done % per_epoch == 0 else True
    epoch = done // per_epoch if validated or done == 0 else done // per_epoch - 1
    rest = list(Schedule(start_epoch=epoch, start_iteration=done, **length))
    assert rest == items[len(items) - len(rest) :]
    assert [item.index for item in rest if not item.validation] == list(range(done, length["epochs"] * per_epoch))
    if not validated and done:
        before = items[: len(items) - len(rest)]
        assert before[-1] == Item(index=done - 1)


def test_a_batches_object_travels_to_a_process(make_trainer: MakeTrainer) -> None:
    batches: Batches = make_trainer().make_batches()
    assert same(pickle.loads(pickle.dumps(batches))[Item(index=3)], batches[Item(index=3)])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("crop", "patch"),
    # The third crop is narrower than what is sampled, so padding is reached; the last two are 2D.
    [
        ((30, 32, 28), (24, 24, 24)),
        ((20, 12, 12), (16, 8, 8)),
        ((20, 20, 20), (24, 24, 24)),
        ((40, 44), (32, 32)),
        ((120, 130), (100, 96)),
        ((2, 9), (2, 8)),
    ],
)
def test_labels_and_image_are_the_originals(crop: tuple[int, ...], patch: tuple[int, ...], seed: int) -> None:
    transform = SpatialTransform(
        patch,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=1,
        rotation=(-0.5, 0.5),
        p_scaling=1,
        scaling=(0.7, 1.4),
        p_synchronize_scaling_across_axes=1,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    np.random.seed(seed)
    torch.manual_seed(seed)
    # Two to five labels in blobs, with and without the padding label, in two channels.
    blobs = torch.randint(-(seed % 2), 2 + seed % 3, (1, 2, *(max(1, n // 5) for n in crop))).float()
    labels = interpolate(blobs, size=crop, mode="nearest")[0].to(torch.int16)
    image = torch.randn(1, *crop)
    drawn = transform.get_parameters(image=image)
    expected = transform._apply_to_image(image, **drawn), transform._apply_to_segmentation(labels, **drawn)
    for one, other in zip(rotated(transform, image, labels, drawn), expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
