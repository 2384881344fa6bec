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
# # A scheme of your own
#
# A curriculum is a point of one space of axes. Here: set some, see what the network will be shown and what it
# costs, and make it a study. Nothing is trained in this notebook.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import yaml
from matplotlib.patches import Rectangle

from study.curriculum.chain import Geometry
from study.curriculum.curriculum import resolve
from study.curriculum.schemes import Axes, named_axes
from study.nnunet.phantom import make_phantom
from study.search.document import space_from

# The full patch in voxels, the product of the strides of each axis, and the batch: `python -m study plan --plans FILE`.
PLAN = Geometry(patch_size=(48, 48, 48), divisors=(8, 8, 8), batch_size=2)
MINE = {"min_patch": 0.25, "stages": 4, "batch_growth": 0.5, "growth": 1.0}

# %% [markdown]
# ## The axes
#
# What each of them means and which values it takes:

# %%
from study.common.setting import settings_of

pd.DataFrame({name: {"legal": each.kind.legal, "meaning": each.meaning} for name, each in settings_of(Axes).items()}).T

# %% [markdown]
# ## The stage table

# %%
mine = resolve(PLAN, named_axes("pgps", **MINE))
pd.DataFrame(
    {
        "patch": ["×".join(map(str, stage.patch_size)) for stage in mine.stages],
        "batch": [stage.batch_size for stage in mine.stages],
        "from iteration": [stage.first_iteration for stage in mine.stages],
        "iterations": [stage.iterations for stage in mine.stages],
    }
)

# %%
shares = {name: resolve(PLAN, named_axes(name)).voxel_share for name in ("cps", "pgps", "pgps+", "efficiency")}
for name, share in {**shares, "mine": mine.voxel_share}.items():
    print(f"{name}: {share:.1%} of the voxels of constant patch size")

# %% [markdown]
# ## What the network sees
#
# A made-up case with its label, and the patches of each stage around the same place: the smaller the patch, the
# larger the share of foreground in it.

# %%
phantom = make_phantom(seed=0, index=0)
volume, label = phantom.image, phantom.labels
center = [int(places.mean()) for places in (label > 0).nonzero()]
figure, panels = plt.subplots(1, 2, figsize=(9, 4.5))
for panel, slice_ in zip(panels, (volume[center[0]], label[center[0]]), strict=True):
    panel.imshow(slice_, cmap="gray")
    panel.axis("off")
for stage in mine.stages:
    _, height, width = stage.patch_size
    corner = (center[2] - width / 2, center[1] - height / 2)
    for panel in panels:
        panel.add_patch(Rectangle(corner, width, height, fill=False, edgecolor="tab:orange"))
plt.show()

# %% [markdown]
# ## As a study
#
# Against constant patch size and PGPS, at two budgets. A space file is checked whole when it is read: an error
# names what was received and what is legal.

# %%
document = {
    "name": "mine",
    "searcher": "grid",
    "curriculum": {"scheme": "pgps", **MINE, "budget": [0.5, 1.0]},
    "training": {"optimizer": "adamw", "epochs": 10, "iterations_per_epoch": 60},
}
space_from(document)
print(yaml.safe_dump(document, sort_keys=False))

# %% [markdown]
# Save it as `mine.yaml` and run it: `python -m study run mine.yaml --data data --dataset 4 --out studies/mine`.
# For a name of its own in legends and reports, CONTRIBUTING, "Add a scheme": an entry of `SCHEMES` is all.
