"""What is kept on disk: whole files or none; no pickle."""
