"""The application: its commands and what stands before them."""

from __future__ import annotations

import typer

from kldiv_cli.cli.compute import compute

__all__ = ["app"]

app = typer.Typer(
    name="kldiv",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("compute", no_args_is_help=True)(compute)


@app.callback()
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
