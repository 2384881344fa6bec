"""One module per verb of `python -m analysis`: EXAMPLES, add_arguments(parser), run(args) -> exit code."""
