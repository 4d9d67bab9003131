"""The embedded model, its SAE suite, and how they were made."""
