"""Figures as data; knows no screen."""
