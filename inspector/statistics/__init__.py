"""One pass over the tokens feeds everything that was asked for."""
