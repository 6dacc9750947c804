"""Reproducible measurements: each prints a table and JSON."""

import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # as the server does, before NumPy is loaded
