"""The deployment that this run of the end-to-end tests is about."""

import os
from typing import Final

import pytest

DEPLOYMENT: Final = os.environ.get("E2E_DEPLOYMENT") or os.environ.get("E2E_SHAPE", "serve")
MIGRATING: Final = "migrating"
MOVES: Final = DEPLOYMENT == MIGRATING
"""Conversations, pages and programs are sent from one side to the other all the time."""


def one_side(reason: str) -> pytest.MarkDecorator:
    """Mark a test that cannot be run while modules move, and say why."""
    return pytest.mark.skipif(MOVES, reason=f"not while modules move: {reason}")
