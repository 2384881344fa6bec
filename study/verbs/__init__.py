"""One module per verb of the command line: EXAMPLES, add_arguments(parser), run(args) -> exit code."""
