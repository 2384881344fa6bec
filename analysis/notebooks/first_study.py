# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first study: from nothing to a front
#
# Six nnU-Net trainings on made-up data, what they cost, which of them nothing beats, and what their models see.
# The first cell trains them, minutes on two cores, unless they are there already: `PGPS_STUDIES` names another
# study.

# %%
import subprocess
import sys

import matplotlib.pyplot as plt
import pandas as pd
import SimpleITK as sitk
from IPython.display import Image, display

from analysis.figures.display_items import as_png
from analysis.fronts.captions import notes
from analysis.fronts.figures import pareto_figure
from analysis.fronts.front import pareto_front
from analysis.statistics.study_results import gather
from analysis.tables.sources import named_studies
from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import CARDS, named_axes

STUDY = named_studies()[0]
if not (STUDY / "study.json").exists():
    subprocess.run([sys.executable, "-m", "study", "demo", "--out", str(STUDY)], check=True)

# %% [markdown]
# ## What is compared
#
# Constant patch size, and two curricula that start on small patches:

# %%
pd.DataFrame({name: {"what": CARDS[name].what, "when": CARDS[name].when} for name in ("cps", "pgps", "pgps+")}).T

# %% [markdown]
# A curriculum is a stage table. On a plan of 128³, the voxels of a batch as the training goes on; the area below
# a line is what it costs:

# %%
plan = Geometry(patch_size=(128, 128, 128), divisors=(32, 32, 32), batch_size=2)
figure, axes = plt.subplots(figsize=(7, 3))
for name in ("cps", "pgps", "pgps+"):
    stages = resolve(plan, named_axes(name)).stages
    starts = [stage.first_iteration for stage in stages]
    voxels = [stage.voxels_per_iteration / 1e6 for stage in stages]
    axes.step([*starts, 250_000], [*voxels, voxels[-1]], where="post", label=name)
axes.set(xlabel="iteration", ylabel="million voxels per iteration")
axes.legend()
plt.show()

# %% [markdown]
# ## What came out
#
# Every trial is a folder with an append-only record. `results.tables` reads them; `results.points` are means
# over folds and seeds.

# %%
results = gather([STUDY])
dataset = results.datasets[0]
points = results.of(dataset).points
points[["summary", "dice", "dice_low", "dice_high", "runtime_seconds", "co2_kg", "voxel_share"]].sort_values("dice")

# %% [markdown]
# ## The front
#
# A point is on it if no other has at least its Dice for at most its time, and is better in one of them. The bars
# say how sure a point's Dice is; where they overlap this widely, more folds and seeds are needed before anything
# is concluded.

# %%
front = pareto_front(points, ["dice", "runtime_seconds"])
display(Image(as_png(pareto_figure(front), dots_per_inch=110)))
print("\n".join(notes(front)))

# %% [markdown]
# ## What the models see
#
# nnU-Net's own validation predictions lie in each trial's folder. Below, one case: the image, its label, and what
# the models with the lowest and the highest Dice make of it, in the middle slice.


# %%
def middle(path, level=0.5):
    """A slice of a volume, from the place where it is likely to show something."""
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return voxels[int(len(voxels) * level)]


trials = results.tables.trials.dropna(subset=["dice"]).sort_values("dice")
shown = {}
for row in trials.iloc[[0, -1]].itertuples():
    found = sorted((STUDY / "trials" / row.trial_id / "results").glob("*/*/fold_*/validation/*.nii.gz"))
    if found:
        shown[f"{row.method}, Dice {row.dice:.3f}"] = found[0]
raw = STUDY / "data" / "nnUNet_raw" / dataset
if shown and raw.exists():
    case = next(iter(shown.values())).name
    image = raw / "imagesTr" / case.replace(".nii.gz", "_0000.nii.gz")
    pictures = {"image": image, "label": raw / "labelsTr" / case, **shown}
    figure, panels = plt.subplots(1, len(pictures), figsize=(3 * len(pictures), 3.2))
    for panel, (title, path) in zip(panels, pictures.items(), strict=True):
        panel.imshow(middle(path), cmap="gray", vmax=None if title == "image" else 2)
        panel.set_title(title, fontsize=9)
        panel.axis("off")
    plt.show()
else:
    print("No predictions here: the study was copied without its models.")

# %% [markdown]
# ## Go on
#
# The same on your data: `python -m study prepare`, then `python -m study run search_spaces/pgps.yaml`. The report
# has more than this notebook; `python -m analysis recommend STUDY --knee` says which point to take and how to
# train it.
