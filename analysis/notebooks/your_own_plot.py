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
# # A plot of your own
#
# The tables of a study are tidy pandas frames, so any plot is some lines away. Here: what a voxel is worth, first
# in plain matplotlib, then in the report's look, and saved for a paper.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
from IPython.display import Image, display

from analysis.figures.display_items import as_pdf, as_png
from analysis.figures.sheet import Sheet
from analysis.figures.style import FILE, styles_of
from analysis.statistics.study_results import gather
from analysis.tables.columns import BY_NAME
from analysis.tables.sources import named_studies

results = gather(named_studies())
points = results.of(results.datasets[0]).points.sort_values("voxels")
points[["summary", "method", "voxels", "dice", "dice_low", "dice_high"]]

# %% [markdown]
# What a column means, with its unit, is in the registry that the report's own legends use:

# %%
for name in ("voxels", "dice", "dice_low", "runtime_seconds"):
    column = BY_NAME[name]
    print(f"{column.label} [{column.unit or '–'}]: {column.meaning}")

# %% [markdown]
# ## Plain matplotlib

# %%
_, axes = plt.subplots(figsize=(6, 3.5))
for method, group in points.groupby("method"):
    axes.plot(group["voxels"] / 1e6, group["dice"], "o-", label=method)
axes.set(xlabel="million voxels trained on", ylabel="Dice")
axes.legend()
plt.show()

# %% [markdown]
# ## In the report's look
#
# A `Sheet` has title, subject and notes, and panels to draw on; `styles_of` knows each method's colour and
# marker. Bars are the 95 % intervals; a missing one is not drawn.

# %%
sheet = Sheet(
    layout=FILE,
    title="Dice against voxels",
    subject=f"{results.datasets[0]}, {len(points)} configurations",
    notes=["Bars: 95 % interval of Dice."],
    panel_height=3,
)
styles = styles_of(points["method"].unique())
with sheet.drawn() as (figure, (panel,)):
    for row in points.itertuples():
        style = styles[row.method]
        panel.plot(row.voxels / 1e6, row.dice, marker=style.marker, color=style.paint.light, linestyle="")
        panel.plot([row.voxels / 1e6] * 2, [row.dice_low, row.dice_high], color=style.paint.light, linewidth=1)
    panel.set(xlabel="million voxels trained on", ylabel="Dice")
display(Image(as_png(figure, dots_per_inch=110)))

# %% [markdown]
# ## For a paper
#
# TrueType fonts, no creation date: the same figure gives the same bytes.

# %%
file = Path(mkdtemp()) / "dice_voxels.pdf"
file.write_bytes(as_pdf(figure))
print(f"{file} has {file.stat().st_size:,} bytes")

# %% [markdown]
# To have a figure in every report, make it an item: CONTRIBUTING, "Add a figure".
