"""Figures and arithmetic, without clock, files or messages."""
