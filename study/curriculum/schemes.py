"""The axes of the space of curricula, each said once, and the named curricula as points of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from study.common.checks import check_choice
from study.common.setting import Count, CountOrShare, Number, Switch, Words, check_settings, setting
from study.curriculum.chain import CHAIN_ORDERS, CHAIN_STARTS, ChainOrder, ChainStart
from study.curriculum.data_curriculum import DEFAULT_EPOCHS, DEFAULT_METRIC, METRICS

StageOrder = Literal["growing", "shrinking", "random", "cyclic"]
Allocation = Literal["even", "reference"]

STAGE_ORDERS: tuple[StageOrder, ...] = ("growing", "shrinking", "random", "cyclic")
ALLOCATIONS: tuple[Allocation, ...] = ("even", "reference")
STEPWISE: Literal["stepwise"] = "stepwise"
SMALLEST_BUDGET = 0.1


@dataclass(frozen=True, kw_only=True)
class Axes:
    """One point of the search space of curricula. Every field is dimensionless, so it fits every dataset.

    What each means stands beside it. `stages` that are None, or more than there are, are all; `pdl_fraction` 1 is 0.

    Raises:
        InvalidInputError: a field is outside its range.
    """

    chain: ChainOrder = setting(
        "cyclic",
        Words(words=CHAIN_ORDERS),
        "Chain",
        "order in which the axes of the patch grow: MICCAI 2024, or its follow-up",
        shown_default="scheme",
    )
    chain_start: ChainStart = setting(
        "trainable",
        Words(words=CHAIN_STARTS),
        "Chain start",
        "smallest size of the chain: what torch trains as it is, or one voxel at the bottleneck as in the follow-up",
        details="smallest size of the chain. `one-voxel` are the divisors themselves, where the follow-up's "
        "`efficiency` and `performance` start: InstanceNorm gives its bias there, so the layers below the bottleneck "
        "learn nothing in that stage. `trainable` is the next size, which torch takes without being told to",
        shown_default="scheme",
    )
    min_patch: float = setting(
        0.0,
        Number(low=0, high=1),
        "Smallest patch",
        "where on the chain growth starts: 0 its smallest size, 1 the full patch (constant patch size)",
        shown_default="scheme",
    )
    stages: int | None = setting(
        None,
        Count(),
        "Stages asked for",
        "how many sizes of the chain are used, evenly spread, both ends among them; missing means all",
        details="how many patch sizes are used, spread evenly; more than there are means all",
        shown_default="scheme: all",
    )
    batch_growth: float | Literal["stepwise"] = setting(
        0.0,
        Number(low=0, high=1, word=STEPWISE),
        "Batch growth",
        "exponent g of b = floor(B·(V(P)/V)^g): 0 constant batch, 1 constant voxels; or `stepwise`, the rule of PGPS+",
        details="0 keeps the batch size, 1 keeps the voxels of a batch; `stepwise` is the rule of PGPS+: as many "
        "samples as fit in the voxels of the next stage's batch",
        shown_default="scheme",
    )
    growth: float = setting(
        0.0,
        Number(low=-3, high=3),
        "Stage growth",
        "exponent p of the share of iterations of the k-th stage, k^p: 0 even, above 0 longer late stages",
        details="share of the iterations that the k-th stage trained gets, proportional to k^p: 0 even shares, above 0 "
        "longer late stages, below 0 longer early ones; every stage keeps one iteration (with `reference`, one epoch). "
        "Idle in random order",
        shown_default="scheme",
        told="stages growing by {:g}",
    )
    shared_crops: bool = setting(
        False,
        Switch(),
        "Shared crops",
        "several crops from one volume",
        details="several crops from one opened volume, when batches are large: all of a volume are random or all "
        "foreground-centred, volumes alternate and begin with a random one",
        shown_default="scheme",
        option=None,
    )
    order: StageOrder = setting(
        "growing",
        Words(words=STAGE_ORDERS),
        "Order",
        "of stages; `shrinking` is a control, `random` draws a size for every iteration, `cyclic` grows several times",
        details="of stages; `shrinking` is a control, `random` draws a size for every iteration, `cyclic` grows, "
        "starts again at the smallest size and grows, `cycles` times",
        shown_default="scheme",
        cost="`cyclic` that of `growing`, but for a stage being set up `cycles` times as often",
        source="`growing` and `random` MICCAI 2024; `cyclic` ours",
    )
    cycles: int = setting(
        2,
        Count(most=100),
        "Cycles",
        "how often the patch grows from the smallest size, in cyclic order",
        details="how often the patch grows from the smallest size, each time over as many iterations; fewer where the "
        "training is too short for one iteration each. Idle but in cyclic order, where one cycle is `growing`",
        told="{} cycles",
        cost="none: the iterations at each size are the same",
        source="ours",
    )
    budget: float = setting(
        1.0,
        Number(low=SMALLEST_BUDGET, high=1),
        "Budget",
        "share of the iterations of each epoch; epochs stay, so the learning rate still falls to zero",
        told="budget {:.0%}",
    )
    allocation: Allocation = setting(
        "even",
        Words(words=ALLOCATIONS),
        "Allocation",
        "iterations to stages: to one iteration, or whole epochs as in the published code",
        told="{} allocation",
    )
    pdl_fraction: float = setting(
        0.0,
        Number(low=0, high=1),
        "Cases first",
        "share of the training cases, most dissimilar, to start on; 0 is all (PDL)",
        details="share of the training cases that the training starts on, the most dissimilar ones (PDL); 0 or 1 is "
        "all of them throughout (CDL). An interval of it starts above 0",
        told="{:.0%} of the cases first",
    )
    pdl_epochs: int | float = setting(
        DEFAULT_EPOCHS,
        CountOrShare(of="epochs"),
        "Epochs on them",
        "from 1 on a number of epochs, below a share of them",
        details="how long it stays with them: epochs, or a share of the epochs (rounded, at least one). Published are "
        "10 epochs for CT and 20 for MRI (AAPM 2020 abstract), each a pass over the cases; one of nnU-Net's is 250 "
        "batches",
    )
    pdl_metric: str = setting(
        DEFAULT_METRIC,
        Words(words=METRICS),
        "Ranked by",
        "measure of similarity that orders the cases; `mean-rank` is ours",
        details="what the cases are ranked by; `mean-rank` is ours, the mean of the ranks by MSE, SSIM and UQI",
        told="by {}",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def needs_ranking(self) -> bool:
        """Whether the training starts on some of the cases, so that their ranking is needed (PDL)."""
        return 0 < self.pdl_fraction < 1


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A curriculum with a name.

    Attributes:
        label: its name for people.
        axes: the point of the space that it is.
        source: who published it.
    """

    label: str
    axes: Axes
    source: str


MICCAI, FOLLOW_UP = "MICCAI 2024", "arXiv 2510.23241"
_ONE_VOXEL = Axes(chain="smallest-first", chain_start="one-voxel", shared_crops=True)
SCHEMES: Mapping[str, Scheme] = {
    "cps": Scheme(label="CPS", axes=Axes(min_patch=1.0), source="constant patch size: conventional training"),
    "pgps": Scheme(label="PGPS", axes=Axes(), source=f"{MICCAI}, section 2.2"),
    "pgps+": Scheme(label="PGPS+", axes=Axes(batch_growth=STEPWISE), source=f"{MICCAI}, section 2.3"),
    "rpss": Scheme(label="RPSS", axes=Axes(order="random"), source=f"random patch sizes; {MICCAI}, section 3.1"),
    "efficiency": Scheme(label="Efficiency", axes=_ONE_VOXEL, source=FOLLOW_UP),
    "performance": Scheme(label="Performance", axes=replace(_ONE_VOXEL, batch_growth=1.0), source=FOLLOW_UP),
}
"""The curricula with a name, in the order of legends. One more needs nothing but a line here."""


def named_axes(scheme: str, **overrides: Any) -> Axes:
    """The axes of a named scheme, some of them overridden; None leaves a field as the scheme has it.

    Raises:
        InvalidInputError: unknown scheme, or an override outside its range.
    """
    check_choice("scheme", scheme, tuple(SCHEMES))
    given = {name: value for name, value in overrides.items() if value is not None}
    return replace(SCHEMES[scheme].axes, **given)
