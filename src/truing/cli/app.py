"""The commands, in the order of the data. Each parses, calls one function and prints; torch loads inside the commands that need it."""

import sys

import typer

from truing.cli import feedback, reward, rounds
from truing.console import complain
from truing.errors import UserError

app = typer.Typer(
    help="Close the RLHF loop: people judge, a reward model learns, PPO tunes, evaluation decides.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for part in (feedback, reward, rounds):
    app.add_typer(part.app)


def main() -> None:
    """The entry point: a user's mistake ends with `what / fix` and exit code 2."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        complain(f"error: {error}")
        sys.exit(2)
