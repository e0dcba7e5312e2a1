"""The entry point: the version without imports, and every error to its exit code, in this one place.

0 fine, 1 a check failed, 2 could not be computed (usage, input, output), 3 an internal error,
130, 143, 141 for an interrupt, a termination and a closed pipe.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

__all__ = ["main"]


class Terminated(BaseException):
    """SIGTERM, raised so that unfinished outputs are removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        from kldiv_cli import __version__

        print(f"kldiv {__version__}")
        return 0
    signal.signal(signal.SIGTERM, _terminate)
    _prepare()
    return _run(arguments)


def _prepare() -> None:
    """Settle what must be so before anything large is imported."""
    # Imports make no garbage, yet a tenth of their time goes into looking for it.
    gc.set_threshold(100_000)
    # Nothing here calls BLAS, whose idle threads cost time and memory at every start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: Sequence[str]) -> int:
    import typer

    from kldiv_cli.cli.app import app
    from kldiv_cli.errors import KldivError

    try:
        command = typer.main.get_command(app)
        code = command.main(list(arguments), prog_name="kldiv", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        return _fail(error.format_message(), arguments)
    except KldivError as error:
        return _fail(str(error), arguments)
    except MemoryError:
        return _fail("out of memory; give --memory a smaller SIZE, or --workers 1", arguments)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Terminated:
        return 143
    except BrokenPipeError:
        return _closed_pipe()
    except Exception as error:
        return _closed_pipe() if type(error).__name__ == "ClosedPipe" else _internal()


def _fail(message: str, arguments: Sequence[str]) -> int:
    """Say what was wrong on one line."""
    if "--debug" in arguments:
        import traceback

        traceback.print_exc()
    line = " ".join(message.split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(f"kldiv: error: {text}", file=sys.stderr)
    return 2


def _internal() -> int:
    import traceback

    traceback.print_exc()
    print("kldiv: internal error: please report it with the lines above", file=sys.stderr)
    return 3


def _closed_pipe() -> int:
    """Leave quietly, and keep the interpreter from flushing into the pipe once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
