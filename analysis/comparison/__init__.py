"""Methods compared with a baseline, case by case: pairs of configurations, statistics, ratios of costs, means.

`compare(evidence)` gives a `Comparison`; `words` puts it into tables and sentences.
"""

from analysis.comparison.columns import RATIOS, ROW_COLUMNS, SUMMARY_COLUMNS
from analysis.comparison.compare import BASELINE, Comparison, compare, joined_with, significant
from analysis.comparison.pairs import methods_of

__all__ = [
    "BASELINE",
    "RATIOS",
    "ROW_COLUMNS",
    "SUMMARY_COLUMNS",
    "Comparison",
    "compare",
    "joined_with",
    "methods_of",
    "significant",
]
