"""Measurements that one experiment makes for itself, where the shared passes do not collect what it needs."""
