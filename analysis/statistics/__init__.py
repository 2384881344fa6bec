"""Tests, intervals and what they are computed from."""
