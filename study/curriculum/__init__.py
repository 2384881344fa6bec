"""The curricula: chain of patch sizes, schemes, stage tables, and which cases come first. Arithmetic alone."""
