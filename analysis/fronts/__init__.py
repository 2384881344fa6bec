"""Pareto fronts, how sure they are, and their figures."""
