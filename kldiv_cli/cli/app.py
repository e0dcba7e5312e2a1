"""The application: its commands and what stands before them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

import typer

__all__ = ["GROUPS", "SUMMARIES", "help_command", "load_command", "make_app", "named_command"]

SUMMARIES: Final = {
    "compute": "Compute KL divergence or BCE of predictions and targets.",
    "compare": "Compare two models' outputs on the same inputs.",
    "inspect": "List the arrays of files and what they look like.",
    "batch": "Compute many pairs, and what all of them come to.",
    "check": "Hold pairs to limits and to a baseline, as a gate.",
    "baseline record": "Record what pairs come to, in a new baseline or beside other pairs.",
    "baseline update": "Accept what pairs come to now, after showing each number before and after.",
    "baseline show": "Show what a baseline holds.",
    "baseline suggest": "Suggest limits from repeated runs, ready to be pasted into a suite.",
}
"""What the list of commands says of each: the first line of its help."""
GROUPS: Final = {"baseline": "Record, update and show accepted numbers."}
_ALONE: Final = ("batch", "check", "baseline record", "baseline update")
"""Without arguments these take the suite in pyproject.toml or say what is missing; others show their help."""
_OF_OTHERS: Final = ([], *([name] for name in GROUPS))
"""What has commands of its own: all of it, and the groups."""


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
    groups = {name: _group(app, name, summary) for name, summary in GROUPS.items()}
    made = _made(arguments)
    for name, summary in SUMMARIES.items():
        group, _, command = name.rpartition(" ")
        parent = groups.get(group, app)
        if name in made:
            parent.command(command, no_args_is_help=name not in _ALONE)(load_command(name))
        else:
            parent.command(command, help=summary)(_listed)
    return app


def _group(app: typer.Typer, name: str, summary: str) -> typer.Typer:
    """Commands of two words."""
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name, help=summary)
    return group


def _made(arguments: Sequence[str]) -> Collection[str]:
    """The commands whose options matter: the one that is called; where the shell asks what it is, all."""
    if list(arguments) in ([*group, option] for group in _OF_OTHERS for option in ("--help", "-h")):
        return ()
    named = named_command(arguments)
    return SUMMARIES if named is None else (named,)


def named_command(arguments: Sequence[str]) -> str | None:
    """The command that is called, of one word or two; the options before it take no values."""
    words = [argument for argument in arguments if not argument.startswith("-")][:2]
    names = (" ".join(words), *words[:1])
    return next((name for name in names if name in SUMMARIES), None)


def help_command(arguments: Sequence[str]) -> str:
    """What shows the help of the command that is called, or of its group where there is no such command."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    group = words[0] if words and words[0] in GROUPS else None
    return " ".join(filter(None, ("kldiv", named_command(arguments) or group, "--help")))


def load_command(name: str) -> Callable[..., None]:
    """The function of a command, from the module of its first word."""
    module, _, function = name.partition(" ")
    command: Callable[..., None] = getattr(
        importlib.import_module(f"kldiv_cli.cli.{module}"), function or module
    )
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
    kldiv batch out/ ref/ --log-softmax -1
    kldiv check student_logits.npy teacher_probs.npy --log-softmax -1 --limit 'distmean < 0.01'
    """
    if version:
        from kldiv_cli import __version__

        typer.echo(f"kldiv {__version__}")
        raise typer.Exit


def _listed() -> None:
    """Stand for a command in the list of them."""
