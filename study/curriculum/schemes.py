"""The axes of the space of curricula, each said once, and the named curricula as points of it.

A card for each curriculum with a name: what it is, when to use it, what to set, what it costs, who published it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from study.common.errors import check_choice
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


@dataclass(frozen=True, kw_only=True)
class SchemeCard:
    """What somebody who chooses a curriculum should know; every field is text in Markdown.

    Attributes:
        what: what it does to a training.
        when: what speaks for it.
        values: settings to begin with.
        trade_offs: what it costs, and where it is known to fail.
        combines: what it goes with, and what it excludes.
        source: where it is from, and what is known of its results.
    """

    what: str
    when: str
    values: str
    trade_offs: str
    combines: str
    source: str


_TITLES = {
    "what": "What it does",
    "when": "When to use it",
    "values": "Suggested values",
    "trade_offs": "Trade-offs",
    "combines": "Combines with",
    "source": "Source",
}
_MICCAI = "Fischer et al., MICCAI 2024 (arXiv 2407.07853)"
_FOLLOW_UP = "Fischer et al., arXiv 2510.23241"

CARDS: Mapping[str, SchemeCard] = {
    "cps": SchemeCard(
        what="Constant patch size: every iteration trains on the full patch of the plan, as nnU-Net does.",
        when="As the baseline of a study: every comparison, ratio of costs and break-even is against it.",
        values="The plan's patch and batch; `foreground_oversampling` 0.33, nnU-Net's, is its default here. Give "
        "it the same budgets as the curricula, so that equal cost can be compared and not only equal iterations.",
        trade_offs="The most voxels of all for its iterations. On a fast GPU where nnU-Net compiles, an iteration "
        "costs less than its voxels suggest: curricula save less time than voxels.",
        combines="PDL (`pdl_fraction`), every training setting. `stages`, `chain` and `batch_growth` are idle: "
        "there is one patch size.",
        source="nnU-Net v2, Isensee et al., Nature Methods 2021. The Dice of CPS in the MICCAI paper is from earlier "
        "nnU-Net runs and its runtimes are extrapolated.",
    ),
    "pgps": SchemeCard(
        what="Starts on the smallest patch that the network can process and grows one axis by one step at a time, "
        "in turn, until the full patch. Each size gets the same number of iterations; the batch stays as planned."
        " A foreground-centred patch holds a larger share of foreground the smaller it is.",
        when="To save voxels at about the same Dice: 35 % of the voxels of CPS over the ten tasks of the Medical "
        "Segmentation Decathlon, by the authors 46 % of its runtime on an A100.",
        values="`min_patch: 0`, all `stages`, `growth: 0`. `allocation: reference` cuts stages at whole epochs as "
        "the published code does; `even`, the default, is better for short trainings.",
        trade_offs="In short trainings it costs Dice at equal iterations, and is compared fairly at equal voxels. "
        "Small patches are bound by overhead: seconds fall less than voxels do. Fixed validation at the full "
        "patch is a larger part of a cheaper training.",
        combines="PDL, every axis (`min_patch`, `stages`, `growth`, `batch_growth`, `budget`), cascades. With "
        "`batch_growth: stepwise` it is PGPS+.",
        source=f"{_MICCAI}, section 2.2. Dice equal or higher than CPS on 6 of 10 tasks.",
    ),
    "pgps+": SchemeCard(
        what="PGPS whose batch fills the room that small patches leave: each stage has as many samples as fit in "
        "the voxels of the next stage's batch, and never fewer than planned.",
        when="When Dice counts more than the last bit of time, and at short budgets: more samples an iteration.",
        values="`batch_growth: stepwise`. On a 128³ plan with batch 2 the batches are 24, 12, 6, 4, 3, 2, 2, 2, 2.",
        trade_offs="More voxels than PGPS: 41 % of CPS in the mean of the ten tasks, and up to 52 % on the 128³ plans. "
        "Large first batches read more volumes, so data loading can become the bottleneck.",
        combines="PDL, `growth`, `min_patch`, `stages`. A number for `batch_growth` replaces the rule.",
        source=f"{_MICCAI}, section 2.3. Dice higher than CPS on 7 of 10 tasks, 51 % of its runtime.",
    ),
    "rpss": SchemeCard(
        what="Random patch sizes: every iteration draws one of the sizes of PGPS, evenly. The same sizes and about"
        " the same voxels, without the order.",
        when="As a control: does the growing help, or only the smaller patches?",
        values="The same `stages`, `min_patch` and budget as the PGPS that it is compared with.",
        trade_offs="The shape changes at every iteration, so kernels that are chosen or compiled by shape pay for "
        "all of them from the start, and the last iterations are not at the full patch. In our short trainings "
        "on Hippocampus it was below CPS at every budget.",
        combines="PDL, `batch_growth`, `stages`. `growth` and `allocation` are idle: there is no order of stages.",
        source=f"{_MICCAI}, section 3.1: below PGPS at every length on the lung task, and below CPS at all but one.",
    ),
    "efficiency": SchemeCard(
        what="The follow-up's cheap variant: the chain starts with one voxel at the bottleneck, and the axis whose"
        " next size is smallest grows first, so that patches stay small for longer. The batch stays as planned.",
        when="When time or energy is the objective: fewer voxels than PGPS.",
        values="As published. Voxels with the published allocation and 1,000 epochs: 34.38 % of CPS on the brain "
        "plan, 31.08 % on the lung plan (PGPS: 38.08 and 35.35 %).",
        trade_offs="In its first stage InstanceNorm returns its bias at the bottleneck, so the layers below it learn "
        "nothing there. More of the training is bound by overhead.",
        combines="PDL, `stages`, `growth`, `min_patch`.",
        source=_FOLLOW_UP,
    ),
    "performance": SchemeCard(
        what="The follow-up's strong variant: the chain of Efficiency with a batch that keeps the voxels of the "
        "full one, b = floor(B·V(P)/V). Several crops are taken from one opened volume.",
        when="When Dice is the objective and the memory that CPS needs is there.",
        values="`batch_growth: 1` and `shared_crops`, as published. Try `batch_growth: 0.5` between it and Efficiency.",
        trade_offs="About as many voxels as CPS: what it saves is not computation. Its first batches are "
        "large (128 samples on a 128³ plan): crops of one volume are alike, and loading them takes CPU cores.",
        combines="PDL, `stages`, `growth`, `min_patch`.",
        source=_FOLLOW_UP,
    ),
    "pdl": SchemeCard(
        what="Progressive Deep Learning, a curriculum of cases: the training starts on the most dissimilar share "
        "of the training cases and goes on with all of them. Not a scheme of patch sizes: it goes with each of "
        "them.",
        when="Where cases differ much and conventional training spends its first epochs on what most cases share.",
        values="`pdl_fraction` 0.25 or 0.5; `pdl_epochs` a share of the epochs, 0.25 by default. Published first "
        "phases are 10 epochs for CT and 20 for MRI, each a pass over the cases. `pdl_metric` `mean-rank`, or "
        "`ssim`.",
        trade_offs="Needs `python -m study rank` for each fold: n(n−1)/2 comparisons, minutes to an hour. A case that "
        "could not be registered looks dissimilar for the wrong reason. On Hippocampus (two seeds, one fold, 600 "
        "iterations) no saving was seen here.",
        combines="Every scheme and setting. It changes neither patch nor batch, so voxels stay.",
        source="AAPM 2020 (abstract and poster); Choi et al., Medical Physics 2023;50:5075. `mean-rank` is ours.",
    ),
}
"""By the name of the scheme; `pdl` is the data curriculum."""


def parts(name: str) -> dict[str, str]:
    """Heading -> text of a card, in order."""
    return {_TITLES[field.name]: getattr(CARDS[name], field.name) for field in fields(SchemeCard)}
