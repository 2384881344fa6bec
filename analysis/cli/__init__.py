"""The verbs that read studies."""
