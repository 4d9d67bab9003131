"""Widgets: each takes data and posts messages; the screen decides."""
