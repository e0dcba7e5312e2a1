"""The application: its commands and what stands before them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

import typer

__all__ = ["SUMMARIES", "load_command", "make_app", "named_command"]

SUMMARIES: Final = {
    "compute": "Compute KL divergence or BCE of predictions and targets.",
    "compare": "Compare two models' outputs on the same inputs.",
    "inspect": "List the arrays of files and what they look like.",
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
    made = _made(arguments)
    for name, summary in SUMMARIES.items():
        if name in made:
            app.command(name, no_args_is_help=True)(load_command(name))
        else:
            app.command(name, help=summary)(_listed)
    return app


def _made(arguments: Sequence[str]) -> Collection[str]:
    """The commands whose options matter: the one that is called; where the shell asks what it is, all."""
    if list(arguments) in (["--help"], ["-h"]):
        return ()
    named = named_command(arguments)
    return SUMMARIES if named is None else (named,)


def named_command(arguments: Sequence[str]) -> str | None:
    """The command that is called; the options before it take no values."""
    first = next((argument for argument in arguments if not argument.startswith("-")), None)
    return first if first in SUMMARIES else None


def load_command(name: str) -> Callable[..., None]:
    """The function of a command, from the module of its name."""
    command: Callable[..., None] = getattr(importlib.import_module(f"kldiv_cli.cli.{name}"), name)
    return command


def kldiv(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    """Losses on stored arrays: KL divergence and binary cross-entropy, exactly as PyTorch has them.

    \b
    kldiv compute student_logits.npy teacher_probs.npy --log-softmax -1
    kldiv compute outputs.h5::/probs labels.npy --loss bce
    kldiv compute predictions.npy targets.npy --json
    kldiv compare original_logits.npy quantized_logits.npy
    kldiv inspect outputs.h5
    """
    if version:
        from kldiv_cli import __version__

        typer.echo(f"kldiv {__version__}")
        raise typer.Exit


def _listed() -> None:
    """Stand for a command in the list of them."""
