"""Numbers only: torch in float64 where sums are kept. Knows no screen, no file, no library of models."""
