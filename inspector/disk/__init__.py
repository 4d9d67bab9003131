"""The ground floor: files, folders and names, opened and removed without trust. Knows nothing of models."""
