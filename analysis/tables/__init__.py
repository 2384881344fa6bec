"""The tidy tables of studies, their columns, units and how tables are written."""
