"""The study on Ray Tune; the only package that imports ray.

`shares` decides what a trial gets of a node, `searcher` hands on the points that `study.search` proposes, `tuning` is
Tune's loop and what happens inside a Tune trial, `driver` puts them together and stops cleanly, `nodes` asks each
machine whether it sees the same, `ranking` spreads the pieces of a ranking. Ray Tune's own experiment state is never
read back: the ledger decides what is done.
"""
