"""The background process that holds the model, and how a view talks to it."""
