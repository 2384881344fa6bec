"""From ledgers to decisions: tidy frames, Pareto fronts, figures, tables and a page. Needs no torch, nnU-Net or Ray.

study folders ─► frame (one row per trial) ─► points (folds and seeds averaged) ─► front ─► figures, tables, page
"""
