"""The report and its page."""
