"""Search spaces: a YAML file -> `SearchSpace` -> points -> trial specifications.

    space = load_space(path).with_overrides(dataset=4)
    check_data(space, prepared_lookup(paths))
    for point in space.points():
        trials = specs(space, point, lookup)

`reading` is the YAML, `document` the format of the file, `domains` what one setting may be, `settings` which settings
there are, `demands` what a trial gets of a machine, `space` the search space itself, `resolution` what
its defaults come to, `trials` the way to trials.
"""

from __future__ import annotations

from study.spaces.demands import Resources
from study.spaces.document import load_space, space_from
from study.spaces.domains import Choice, Domain, Fixed, Integer, LogUniform, Scalar, Uniform
from study.spaces.resolution import resolved_space
from study.spaces.space import GRID, OBJECTIVES, OPTUNA, RANDOM, Point, SearchSpace
from study.spaces.trials import check_data, specs

__all__ = [
    "GRID",
    "OBJECTIVES",
    "OPTUNA",
    "RANDOM",
    "Choice",
    "Domain",
    "Fixed",
    "Integer",
    "LogUniform",
    "Point",
    "Resources",
    "Scalar",
    "SearchSpace",
    "Uniform",
    "check_data",
    "load_space",
    "resolved_space",
    "space_from",
    "specs",
]
