"""Activations that callers add: kept in files, found by name beside the catalogue's, made in a process of their own."""
