"""Chapters of a report: each module answers one question about studies with exhibits."""
