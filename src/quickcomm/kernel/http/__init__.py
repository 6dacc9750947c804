"""HTTP for all modules: one application from many routes, problem documents, checked input."""

from quickcomm.kernel.http.app import Gate, create_app
from quickcomm.kernel.http.problems import (
    Problem,
    TooManyRequestsError,
    UnauthorizedError,
    problem,
    problem_of,
)
from quickcomm.kernel.http.traced import traced_client

__all__ = [
    "Gate",
    "Problem",
    "TooManyRequestsError",
    "UnauthorizedError",
    "create_app",
    "problem",
    "problem_of",
    "traced_client",
]
