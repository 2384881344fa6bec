"""Figures and tables in the papers' form."""
