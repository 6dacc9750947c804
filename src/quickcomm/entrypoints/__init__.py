"""Paths of the release before, which its processes still use."""
