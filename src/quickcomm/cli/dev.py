"""`quickcomm dev`: tools for those who develop and test against QuickComm."""

import asyncio
import ipaddress
import json
import signal

import click

from quickcomm.cli.options import json_option
from quickcomm.kernel.errors import ConfigurationError

_RATE = click.FloatRange(0.0, 1.0)
_MS = click.FloatRange(0.0, 3_600_000.0)


@click.group("dev")
def dev_group() -> None:
    """Tools for development and tests; a running site needs none of them."""


@dev_group.command("fake-llm")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; there is no TLS.")
@click.option("--port", default=8899, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--model", default="fake-llm", show_default=True, help="The name of the model.")
@click.option("--api-key", help="Refuse requests without this key (401).")
@click.option("--pack", help="Site pack for plausible answers [default: hospitality].")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same latencies and faults.")
@click.option("--median-ms", default=0.0, show_default=True, type=_MS, help="Median of the log-normal latency.")
@click.option("--p99-ms", default=0.0, type=_MS, help="Its 99th percentile [default: no spread].")
@click.option("--busy", default=0.0, type=_RATE, help="Share of requests that get 429 with Retry-After.")
@click.option("--retry-after-s", default=1.0, show_default=True, help="What Retry-After says.")
@click.option("--max-concurrent", default=0, help="More requests at a time get 429 [default: no limit].")
@click.option("--error", default=0.0, type=_RATE, help="Share that gets 500.")
@click.option("--hang", default=0.0, type=_RATE, help="Share that gets no answer until the client leaves.")
@click.option("--cut", default=0.0, type=_RATE, help="Share whose JSON ends in the middle (finish_reason length).")
@click.option("--wrong-schema", default=0.0, type=_RATE, help="Share whose JSON is not what was asked for.")
@click.option("--drip", default=0.0, type=_RATE, help="Share whose answer comes a few bytes at a time.")
@click.option("--drip-s", default=30.0, show_default=True, help="How long such an answer takes.")
@click.option("--dead", is_flag=True, help="Break every connection without an answer.")
@click.option("--obey", is_flag=True, help="Do what the utterance says: return every room, thing and urgency in it.")
@json_option
def fake_llm_command(
    *,
    host: str,
    port: int,
    model: str,
    api_key: str | None,
    pack: str | None,
    seed: int,
    as_json: bool,
    **options: object,
) -> None:
    """An OpenAI-compatible endpoint that answers plausibly, with the latency and the faults that you choose.

    Point QuickComm at the address that it prints:

    \b
      quickcomm dev fake-llm --median-ms 800 --p99-ms 2500 &
      quickcomm serve --llm-url http://127.0.0.1:8899/v1

    It serves GET /v1/models and POST /v1/chat/completions, follows the JSON schema of a request and counts tokens.
    Rates are between 0 and 1 and apply to each request by itself. Change them while it runs, by the same names:

    \b
      curl -d '{"hang": 1.0}' http://127.0.0.1:8899/control     it hangs from now on
      curl -d '{"hang": 0, "dead": true}' …/control             it dies: connections break
      curl -d '{"dead": false}' …/control                       it is back
      curl …/control                                            how it behaves, and what it did so far

    Ctrl-C ends it.
    """  # noqa: D301 - click wants the character itself
    from quickcomm.dev.answers import obedient, simple_answers  # noqa: PLC0415 - not needed for --help
    from quickcomm.dev.fake_llm import FakeModel, serve  # noqa: PLC0415
    from quickcomm.dev.faults import Behaviour  # noqa: PLC0415
    from quickcomm.kernel.site_pack import DEFAULT_PACK, load_pack  # noqa: PLC0415

    try:
        behaviour = Behaviour(**options)  # type: ignore[arg-type]  # click has checked the types
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error
    loaded = load_pack(pack or DEFAULT_PACK)
    answers = simple_answers(loaded)

    def ready(bound: int) -> None:
        url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        if as_json:
            click.echo(json.dumps({"url": f"{url}/v1", "control": f"{url}/control", "model": model}))
        else:
            click.echo(f"The fake language model {model} is ready: {url}/v1 (control: {url}/control)")
            if not _loopback(host):
                click.echo("Others can reach this, and it has no protection but --api-key.", err=True)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        fake = FakeModel(answers, obedient(answers, loaded), behaviour, model=model, api_key=api_key, seed=seed)
        try:
            await serve(fake, host, port, ready, stop)
        except OSError as error:
            raise ConfigurationError(f"Cannot listen on {host}:{port}: {error.strerror}. Try --port 0.") from error

    import uvloop  # noqa: PLC0415

    uvloop.run(run())


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
