"""The application: its commands and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import typer

__all__ = ["SUMMARIES", "make_app"]

SUMMARIES: Final = {
    "compute": "Compute KL divergence or BCE of predictions and targets.",
}
"""What the list of commands says of each: the first line of its help."""


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The application for these arguments; the options of commands are made only where they matter."""
    app = typer.Typer(
        name="kldiv",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(kldiv)
    if list(arguments) in (["--help"], ["-h"]):
        for name, summary in SUMMARIES.items():
            app.command(name, help=summary)(_listed)
    else:
        from kldiv_cli.cli.compute import compute

        app.command("compute", no_args_is_help=True)(compute)
    return app


def kldiv(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Losses on stored arrays: KL divergence and binary cross-entropy, exactly as PyTorch has them.

    \b
    kldiv compute student_logits.npy teacher_probs.npy --log-softmax -1
    kldiv compute outputs.h5::/probs labels.npy --loss bce
    kldiv compute predictions.npy targets.npy --json
    """
    if version:
        from kldiv_cli import __version__

        typer.echo(f"kldiv {__version__}")
        raise typer.Exit


def _listed() -> None:
    """Stand for a command in the list of them."""
