"""A process that serves a GGUF file by llama.cpp, OpenAI-compatible; prints its address, ends when its input does.

A process of its own, because the engine's threads and its log are then nobody else's. Started by `llama`.
"""

import sys


def main(weights: str, context: int, threads: int) -> None:
    import xllamacpp  # noqa: PLC0415 - not on every platform

    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.model_alias = {"smollm2"}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = threads
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)  # noqa: T201 - the one line that the parent waits for
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
