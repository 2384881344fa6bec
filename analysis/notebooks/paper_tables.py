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
# # The paper's tables and figures, from your trials
#
# The MICCAI 2024 paper on Progressive Growing of Patch Size shows Dice, training time and CO₂ of CPS and PGPS
# (Table 1), lines over budgets (Fig. 2), and what PGPS saves (Fig. 3). Here they are from a study, with the published
# numbers beside them where the dataset is one of the paper's.

# %%
from IPython.display import Image, Markdown, display

from analysis.comparison.reference import contradictions, source, table1
from analysis.figures.display_items import as_png
from analysis.figures.style import FILE
from analysis.page.papers import papers
from analysis.statistics.study_results import gather
from analysis.tables.format import latex, markdown
from analysis.tables.sources import named_studies

STUDIES = named_studies()
# Published numbers to show beside yours, or None.
REFERENCE = "miccai2024"

# %%
results = gather(STUDIES)

# %% [markdown]
# ## From your trials

# %%
section = papers(results, reference=REFERENCE)
for item in section.items:
    display(Markdown(f"### {item.heading}"))
    if item.draw is not None:
        display(Image(as_png(item.draw(FILE), dots_per_inch=110)))
    if item.table is not None:
        display(Markdown(markdown(item.table)))
    display(Markdown("\n".join(f"- {sentence}" for sentence in item.notes)))

# %% [markdown]
# What is not shown, and why:

# %%
print("\n".join(section.missing) or "Everything is there.")

# %% [markdown]
# ## The published numbers alone
#
# As printed, and recomputed: where the paper's text and its own table disagree, the sentence says so.

# %%
print(source("miccai2024").citation)
table1("miccai2024")

# %%
print("\n".join(contradictions("miccai2024")) or "Text and table agree.")

# %% [markdown]
# ## For a paper of your own
#
# Every table is also LaTeX (booktabs).

# %%
for item in section.items:
    if item.table is not None:
        print(latex(item.table, caption=item.caption, label=item.stem))
        break
