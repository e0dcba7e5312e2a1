"""The entry point: the version without imports, and every error to its exit code, in this one place.

0 fine, 1 a check failed, 2 could not be computed (usage, input, output), 3 an internal error,
130, 143, 129, 141 for an interrupt, a termination, a terminal that is gone and a closed pipe.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["main"]


class Terminated(BaseException):
    """SIGINT, SIGTERM or SIGHUP, raised so that unfinished outputs are removed on the way out."""

    code = 143
    arrived = False
    """Whether all that it had to pass lies behind it: another signal would only be in the way."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _version() if arguments == ["--version"] else _guarded(arguments)
    except KeyboardInterrupt:
        return 130
    except Terminated:
        Terminated.arrived = True
        from kldiv_cli.atomic import remove_unfinished

        _rearm(0.0)
        remove_unfinished()
        return Terminated.code


def _version() -> int:
    """Print the version; nothing but this package is imported for it."""
    from kldiv_cli import __version__

    try:
        print(f"kldiv {__version__}", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _guarded(arguments: Sequence[str]) -> int:
    """Run, and turn what goes wrong into an exit code and a line on stderr."""
    from kldiv_cli.errors import KldivError
    from kldiv_cli.streams import ClosedPipe, abandon_stdout, say

    try:
        _prepare()
        return _run(arguments)
    except KldivError as error:
        return _fail(_as_typed(str(error), arguments), arguments)
    except MemoryError:
        return _fail("out of memory; give --memory a smaller SIZE, or --workers 1", arguments)
    except ClosedPipe:
        abandon_stdout()
        return 141
    except Exception:
        import traceback

        say(traceback.format_exc())
        say("kldiv: internal error: please report it with the lines above")
        return 3


def _prepare() -> None:
    """Settle what must be so before anything large is imported."""
    import gc
    import signal

    from kldiv_cli.streams import Stdout

    Terminated.arrived = False
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _terminate)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _raise_again)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminate)
    # Imports make no garbage, yet a tenth of their time goes into looking for it.
    gc.set_threshold(100_000)
    # Nothing here calls BLAS, whose idle threads cost time and memory at every start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = Stdout()


def _run(arguments: Sequence[str]) -> int:
    import typer

    from kldiv_cli.cli.app import make_app

    try:
        command = typer.main.get_command(make_app(arguments))
        code = command.main(list(arguments), prog_name="kldiv", standalone_mode=False)
    except typer.Abort:
        return 130
    except typer.TyperException as error:
        return _refuse(error.format_message(), arguments)
    return code if isinstance(code, int) else 0


def _refuse(message: str, arguments: Sequence[str]) -> int:
    """Say what Typer says of the arguments: of none at all, the whole help."""
    from kldiv_cli.cli.app import help_command
    from kldiv_cli.streams import say

    if message.startswith("Usage:"):
        say(message)
        return 2
    return _fail(f"{message.rstrip('.')}; see {help_command(arguments)}", arguments)


def _as_typed(message: str, arguments: Sequence[str]) -> str:
    """Name the argument that a message begins with as the option it was typed as."""
    import inspect

    from kldiv_cli.cli.app import load_command, named_command

    command = named_command(arguments)
    if command is None:
        return message
    name, _, rest = message.partition(" ")
    argument = name.removesuffix(":")
    parameters = inspect.signature(load_command(command)).parameters.values()
    if argument not in {p.name for p in parameters if p.default is not p.empty}:
        return message
    return f"--{argument.replace('_', '-')}{':' * name.endswith(':')} {rest}"


def _fail(message: str, arguments: Sequence[str]) -> int:
    """Say what was wrong on one line."""
    from kldiv_cli.streams import abandon_stdout, printable, say

    if "--debug" in arguments:
        import traceback

        say(traceback.format_exc())
    say(f"kldiv: error: {printable(message)}")
    abandon_stdout()
    return 2


def _terminate(number: int, frame: FrameType | None) -> None:
    if not Terminated.arrived:
        Terminated.code = 128 + number
        sys.unraisablehook = _report_unraisable
        _raise_again(number, frame)


def _raise_again(number: int, frame: FrameType | None) -> None:
    if Terminated.arrived:
        return
    # In a callback that can't pass it on the exception would be lost, so it is raised until it arrives.
    _rearm(2.0)
    raise Terminated


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    # Where the termination was lost it comes again; Python's lines about the loss would tell nobody anything.
    if unraisable.exc_type is not Terminated:
        sys.__unraisablehook__(unraisable)


def _rearm(seconds: float) -> None:
    """Raise `Terminated` again after this time; not at all for 0."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    sys.exit(main())
