"""HTTP for all modules: one application from many routes, problem documents, checked input."""

from quickcomm.kernel.http.app import Gate, create_app
from quickcomm.kernel.http.problems import (
    Problem,
    TooManyRequestsError,
    UnauthorizedError,
    error_of,
    problem,
    problem_of,
    status_of,
)
from quickcomm.kernel.http.traced import traced_client

__all__ = [
    "Gate",
    "Problem",
    "TooManyRequestsError",
    "UnauthorizedError",
    "create_app",
    "error_of",
    "problem",
    "problem_of",
    "status_of",
    "traced_client",
]
