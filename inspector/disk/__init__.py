"""The ground floor: files, folders and names, opened and removed without trust. Nothing here is about models."""
