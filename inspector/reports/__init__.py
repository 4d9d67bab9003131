"""Pages about stored results: one file that needs nothing beside it."""
