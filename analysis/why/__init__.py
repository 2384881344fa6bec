"""Figures that say why: slices, parallel coordinates, learning curves, and where the cost went."""
