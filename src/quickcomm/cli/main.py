"""`quickcomm`: the command line. Commands are loaded when they are asked for, so that `--help` is quick."""

import importlib
import os
import sys
from typing import Any, Final

import click

from quickcomm import __version__
from quickcomm.kernel.errors import QuickCommError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve:serve_command", "Run QuickComm: one process, everything embedded."),
    "demo": ("demo:demo_command", "Serve, play the sample shift into it, show what came out."),
    "ingest": ("ingest:ingest_command", "Stream files, standard input or a sound device."),
    "classify": ("offline:classify_command", "Utterances on standard input to insights."),
    "transcribe": ("offline:transcribe_command", "Audio files to text, as live but offline."),
    "prompts": ("prompts:prompts_group", "Prompt versions: evaluate, deploy with a canary, roll back."),
    "up": ("up:up_command", "Run a whole site: edge, store, processes."),
    "down": ("up:down_command", "Stop it, and leave nothing behind."),
    "scale": ("up:scale_command", "Have more or fewer processes of a module."),
    "restart": ("up:restart_command", "Replace a module's processes one by one."),
    "migrate": ("migrate:migrate_group", "Move a module out of the monolith step by step, or back."),
    "deploy": ("deploy:deploy_command", "Bring another release of a service onto a running site, or take it back."),
    "release": ("deploy:release_command", "Version, digest and messages of this installation."),
    "status": ("admin:status_command", "What is running, and how it is."),
    "report": ("report:report_command", "What came in, what is open, what was slow."),
    "trace": ("trace:trace_command", "Where the time of an utterance went, stage by stage."),
    "ledger": ("admin:ledger_command", "Received = speech + silence + gap."),
    "check": ("check:check_command", "Is everything there, once, on every side?"),
    "close": ("sagas:close_command", "Close a conversation: finish it, sum it up, archive it."),
    "correct": ("sagas:correct_command", "Correct a misheard utterance: text, insights, card, tasks."),
    "dispatch": ("sagas:dispatch_command", "Give a task to a person, and tell them through the webhook."),
    "sagas": ("sagas:sagas_group", "Operations over several modules: look, resume, take back."),
    "keys": ("admin:keys_group", "Create, list and revoke API keys."),
    "trust": ("trust:trust_group", "Keys of the services, and their rights in the store."),
    "dead-letters": ("admin:dead_letters_group", "What could not be handled, and why."),
    "erase": ("erase:erase_group", "Delete a conversation, a name or a time range everywhere."),
    "backup": ("backup:backup_command", "Save the whole site while it runs."),
    "restore": ("backup:restore_command", "Put a backup back while nothing runs."),
    "export": ("transfer:export_command", "Write what people said and did to a file, for another site."),
    "import": ("transfer:import_command", "Add what another site has exported."),
    "assess": ("assess:assess_command", "Stay one process, or split a module off? By what a site's metrics say."),
    "plan": ("plan:plan_command", "What will it cost, as copies of the monolith and as services?"),
    "bench": ("bench:bench_group", "Measure this machine; compare the monolith with services."),
    "simulate": ("simulate:simulate_command", "A site over a day in simulated time: what is late, when, and why."),
    "dev": ("dev:dev_group", "Tools for development: a fake language model."),
    "doctor": ("doctor:doctor_command", "Check this machine, the models and the running parts."),
}
PROCESSES: Final[dict[str, str]] = {
    "audio": "services:audio_command",
    "dashboard": "services:dashboard_command",
    "intelligence": "services:intelligence_command",
    "operations": "services:operations_command",
    "relay": "services:relay_command",
    "traffic": "services:traffic_command",
}
"""What `up` starts: each has its `--help`, but nobody needs to know of them."""


for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # Before NumPy is loaded: its threads spin while they wait for each other, and the engines need that CPU.
    os.environ.setdefault(_threads, "1")


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        known = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else PROCESSES.get(cmd_name)
        if known is None:
            return None
        module, _, name = known.partition(":")
        command: click.Command = getattr(importlib.import_module(f"quickcomm.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Errors of ours are said in a line, with a way out; anything else is a bug and shows its trace."""
        try:
            return super().invoke(ctx)
        except QuickCommError as error:
            click.echo(f"quickcomm: {error}", err=True)
            sys.exit(1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="quickcomm")
def main() -> None:
    """Hears live operations talk, writes it down, understands it, and puts it before the person who must act.

    Start with `quickcomm demo`, or `quickcomm serve` and `quickcomm ingest FILE`.
    """


if __name__ == "__main__":
    main()
