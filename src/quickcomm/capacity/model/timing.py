"""How long each step takes, for `quickcomm simulate`: the `timing` block of a unit-cost file, and its defaults.

Times are seconds of one core that has nothing else to do, unless said otherwise. Below each: where its default is from.
"""

from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(ge=0)]
Factor = Annotated[float, msgspec.Meta(ge=1)]


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults: two virtual cores of an AMD EPYC, tiny.en int8 (docs/benchmarks.md)."""

    encode_s: Positive = 0.022
    """The encoder over its shortest window, 8 s; a longer one takes as much more. Measured: `raw_engine`, idle."""
    tokens_s: Positive = 0.0108
    """The decoder, a second of speech. Measured: 27 ms for 2.5 s."""
    opinion_s: Positive = 0.0022
    """A second opinion with the list of words, a second of speech, the mean over all clips. Fitted: CPU at 16."""
    words_s: Positive = 0.0032
    """Word times, a second of speech. Measured: 8 ms for 2.5 s."""
    batch: Positive = 0.45
    """What each further clip of a batch adds, as a share of a single one. Fitted: p95 at 48 talkers. Full batches of 4
    alone (0.0175 s a second of speech, against 0.036 s of single clips beside each other) would give 0.31."""
    beside: Factor = 1.6
    """How much longer work takes where all cores are busy. Fitted: CPU and p95 at 16 and 48 talkers. Measured: 69 ms
    become 105 ms beside a second worker, 1.52."""
    decode_spread: Positive = 0.5
    """Of decoding times of clips of one length: sigma of the logarithm. Fitted: p95 at 8 and 16 talkers."""
    window_margin_s: Positive = 5.0
    """Silence behind a clip in the encoder's window (`WhisperSettings`)."""
    hear_s: Positive = 0.0029
    """Front end and voice detection, a second of speech. Measured: 9 % of 1.47 cores at 48 talkers with 33.8 s of
    speech a second, less a quarter, as the cores were busy (`beside`)."""
    receive_s: Positive = 0.0019
    """Sockets and all else in the event loop, a second of speech. Measured: 6 % of the same, less a quarter."""
    open_s: Positive = 0.00037
    """An open conversation, a second, speech or not. Measured: 1,000 silent channels take 0.37 cores."""
    publish_s: Positive = 0.0028
    """An utterance's commit by audio; by the dashboard as much. Measured: 5 % of 1.47 cores for 10 utterances a second,
    less a quarter."""
    understand_s: Positive = 0.011
    """An utterance in the local classifier, the median. Measured: `classify`."""
    understand_spread: Positive = 0.5
    """Sigma of its logarithm. Measured: p95 25 ms."""
    ask_s: Positive = 0.008
    """CPU of an utterance that a model understands. Measured: `llm`."""
    model_s: Positive = 0.8
    """Latency of the model, the median. Assumed: as in `benchmarks.compare`."""
    model_spread: Positive = 0.49
    """Sigma of its logarithm. Assumed: p99 2.5 s, as there."""
    model_at_once: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Calls at once of one process (`llm.max_concurrency`)."""
    model_budget_s: Positive = 3.0
    """Then the local classifier's answer stands (`llm.budget_s`)."""
    push_s: Positive = 0.0001
    """A card to one page. Assumed."""
    query_s: Positive = 0.0007
    """A question to the dashboard, half of it in the database. Measured: the dashboard takes 0.32 cores for 200 a
    second, 50 pages and 8 utterances a second, less a quarter, less what cards take."""
    edge_s: Positive = 0.002
    """The edge, a second of speech. Measured: `up` takes 6 % more than `serve`."""
    edge_query_s: Positive = 0.0003
    """The edge, a question. Measured: 0.14 cores in the same rush hour, less a quarter, less what sound takes."""
    hop_s: Positive = 0.001
    """Between two services, not CPU. Measured: 0.5 to 1.1 ms idle (`hops`, `bus`)."""
    message_s: Positive = 0.1
    """Sound in one message of a client; nothing is known before it is full. docs/clients.md."""
    start_s: Positive = 5.0
    """Until a new process works. Measured: 1.5 s idle; assumed under load."""
    take_over_s: Positive = 1.6
    """Until others take over from a process that is gone. Measured: 1.57 s, the median (`bus`)."""
