"""The `runledger` command. Results go to stdout, everything else to stderr.

Exit codes: 0 done, 1 it did not work, 2 wrong usage, 78 wrong settings, 130 interrupted.
The modules imported here are light; what a command needs beyond them it imports when it runs, so that `--help`
answers at once.
"""

from __future__ import annotations

import signal

import typer

from app.cli import actions, database, doctor, keys, new_action, run, runs, serving, up, worker
from app.cli.screen import complaints

app = typer.Typer(
    help="Submit an action, get a run id in milliseconds, watch the run to its end.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (up.up, serving.api, actions.actions, run.run, new_action.new_action, doctor.doctor):
    app.command()(command)
app.add_typer(worker.app, name="worker")
app.add_typer(runs.app, name="runs")
app.add_typer(database.app, name="db")
app.add_typer(keys.app, name="keys")


def main() -> None:
    """Run the command line, and end the process with an exit code."""
    # As Ctrl-C does: what was started is stopped, where the default would leave it running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with complaints():
        app(prog_name="runledger")
