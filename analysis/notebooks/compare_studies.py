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
# # Studies compared
#
# Is a curriculum better than constant patch size (CPS), by how much, and how sure is that? And do several studies
# agree? Name them in `PGPS_STUDIES`, separated as in PATH; one study alone works too.

# %%
import pandas as pd
from IPython.display import Image, Markdown, display

from analysis.comparison.compare import compare
from analysis.comparison.text import notes, whole_table
from analysis.figures.display_items import as_png
from analysis.fronts.figures import MOST_GROUPS, pareto_figure
from analysis.fronts.front import pareto_front
from analysis.statistics.study_results import gather
from analysis.tables.format import markdown
from analysis.tables.sources import named_studies

STUDIES = named_studies()

# %%
results = gather(STUDIES)
results.tables.trials.groupby(["study", "dataset", "method", "state"]).size().rename("trials").to_frame()

# %% [markdown]
# ## What may be compared
#
# Dice and voxels do not depend on the machine. Seconds, energy and CO₂ do: look here first.

# %%
trials = results.tables.trials
trials.groupby("study")[["hardware", "cpus", "gpus", "concurrent_trials", "meter", "country"]].agg(
    lambda values: " | ".join(sorted({str(value) for value in values.dropna()}))
)

# %% [markdown]
# ## Schemes against CPS, case by case
#
# Each validation case is paired with itself. The difference comes with a bootstrap interval, a one-sided Wilcoxon test
# (corrected over the comparisons by Holm), an effect size and the ratio of costs.

# %%
comparison = compare(results)
display(Markdown(markdown(whole_table(comparison)) if len(comparison.rows) else "Nothing to compare with CPS."))
print("\n".join(notes(comparison)))

# %% [markdown]
# The same as numbers, for your own plots:

# %%
comparison.rows[["dataset", "against", "budget", "dice_difference", "p_holm", "runtime_ratio", "co2_ratio"]]

# %% [markdown]
# ## Study by study
#
# A point that two studies trained is averaged over both. To see whether they agree, read them one by one.

# %%
by_study = {}
for folder in STUDIES:
    points = gather([folder]).points
    by_study[str(folder)] = points.set_index(["dataset", "summary"])["dice"]
pd.DataFrame(by_study)

# %% [markdown]
# ## One figure
#
# A front of each dataset, with a line per hardware where there are several.

# %%
for dataset in results.datasets:
    points = results.of(dataset).points
    machines = points["hardware"].nunique()
    by = "hardware" if 1 < machines <= MOST_GROUPS else None
    display(Image(as_png(pareto_figure(pareto_front(points, ["dice", "runtime_seconds"], by=by)), dots_per_inch=110)))
