"""Reproducible measurements: each prints a table and JSON."""
