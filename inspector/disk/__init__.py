"""The ground floor: small files and names, read without trust. Knows nothing of models."""
