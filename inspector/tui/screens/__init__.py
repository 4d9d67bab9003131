"""The screens: each decides what its widgets show."""
