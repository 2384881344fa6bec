"""Methods against each other, case by case."""
