"""The study on Ray Tune; the only package that imports ray.

`allotment` decides what a trial gets of a node, `searchers` proposes points, `work` is what happens inside a Tune
trial, `driver` puts them together and stops cleanly. Ray Tune's own experiment state is never read back: the ledger
decides what is done.
"""
