"""Figures that explain a front."""
