"""A site in simulated time (SimPy): people talk, threads share cores, processes start, stop and get lost."""
