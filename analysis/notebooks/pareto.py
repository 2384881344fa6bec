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
# # A study's Pareto front
#
# Open a study, look at its front, filter it, and ask what it would have emitted on another country's grid. Everything
# here is what the report uses: change a line, and run on.

# %%
import pandas as pd
from IPython.display import Image, display

from analysis.figures.display_items import as_png
from analysis.fronts.captions import notes, states
from analysis.fronts.figures import pareto_figure
from analysis.fronts.front import pareto_front
from analysis.statistics.study_results import gather, results_of
from analysis.tables.sources import Grid, named_studies, redrawn

# Study folders, reports, or folders of a report's tables. PGPS_STUDIES may hold several, separated as in PATH.
STUDIES = named_studies()

# %%
results = gather(STUDIES)
print(states(results.tables.trials))
print(f"{len(results.points)} configurations with a finished trial, on {', '.join(results.datasets) or 'no dataset'}")

# %% [markdown]
# `results.tables` has four tidy tables (`trials`, `epochs`, `cases`, `costs`); `results.points` are the finished
# trials averaged over folds and seeds. Missing means missing: nothing that was not measured is 0.
# `analysis.tables.columns` says what each column means.

# %%
results.points[["dataset", "summary", "dice", "dice_low", "dice_high", "runtime_seconds", "co2_kg", "n_folds"]]

# %% [markdown]
# ## The front
#
# A point is on the front if no other is at least as good in everything and better in something. Each dataset has a
# front of its own. Below: Dice against training time. Hollow points rest on one fold.

# %%
if not results.datasets:
    raise SystemExit("No trial has finished, so there is no front: run the study on.")
dataset = results.datasets[0]
points = results.of(dataset).points
front = pareto_front(points, ["dice", "runtime_seconds"])
display(Image(as_png(pareto_figure(front), dots_per_inch=110)))
print("\n".join(notes(front)))

# %%
front.best[["number", "summary", "dice", "runtime_seconds"]]

# %% [markdown]
# Other costs are `co2_kg`, `energy_kwh`, `total_seconds`, `voxels` and `voxel_share`; three objectives work as well.
# Voxels do not depend on the machine, so they may be compared across machines.

# %%
three = pareto_front(points, ["dice", "runtime_seconds", "voxels"])
three.best[["number", "summary", "dice", "runtime_seconds", "voxels"]]

# %% [markdown]
# ## A part of it
#
# Points are a pandas frame, so a filter is a line: here what reaches within 0.02 of the best Dice.

# %%
good = points[points["dice"] >= points["dice"].max() - 0.02]
cheapest = good.sort_values("runtime_seconds").iloc[0]
print(f"{len(good)} of {len(points)} configurations come within 0.02 of the best Dice.")
print(f"The cheapest of them: {cheapest['summary']}, Dice {cheapest['dice']:.4f}, {cheapest['runtime_seconds']:.1f} s.")

# %% [markdown]
# ## Another grid
#
# Energy stays as it was measured or estimated; only what turns it into CO₂ changes: the carbon intensity of a country's
# electricity (CodeCarbon's yearly averages) and, if given, the data centre's PUE. In order: Sweden, Germany, Poland.

# %%
on_grid = {"as recorded": points.set_index("summary")["co2_kg"] * 1000}
for country in ("SWE", "DEU", "POL"):
    redone = results_of(redrawn(results.tables, Grid(country=country))).of(dataset).points
    on_grid[country] = redone.set_index("summary")["co2_kg"] * 1000
print("Training CO₂ in grams:")
pd.DataFrame(on_grid)

# %% [markdown]
# The order of the points stays the same unless they were measured on different grids; what a curriculum saves in
# kilograms does not.
