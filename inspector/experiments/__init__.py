"""One file per experiment; the file name, with dashes, is the id."""
