"""What can go wrong, as a tree; each leaf is also the standard class a caller would catch.

KldivError
├── UsageError (ValueError)          options that are unknown or contradict each other
├── InputError (ValueError)          an input that can't be used
│   ├── InputNotFound (FileNotFoundError)
│   ├── FormatError                  not the format it claims to be, damaged, or unsafe to read
│   ├── DatasetError (LookupError)   no such array in a container, or more than one it could be
│   ├── InputChanged                 the file changed while it was read
│   ├── ShapeMismatch                shapes that do not belong together
│   ├── AxisError (IndexError)       no such axis
│   └── DomainError                  values outside the range a loss is defined on
├── OutputError (OSError)            an output that can't be written
└── WorkerDied                       a process that computed has gone, with all it had begun
    └── ClusterGone                  all of them have, or can't be reached any more
"""

from __future__ import annotations

__all__ = [
    "AxisError",
    "ClusterGone",
    "DatasetError",
    "DomainError",
    "FormatError",
    "InputChanged",
    "InputError",
    "InputNotFound",
    "KldivError",
    "OutputError",
    "ShapeMismatch",
    "UsageError",
    "WorkerDied",
    "sendable",
]


class KldivError(Exception):
    """The base of every error this package raises on purpose; its text is one line."""

    def __str__(self) -> str:
        return " ".join(str(argument) for argument in self.args)


class UsageError(KldivError, ValueError):
    """Options that are unknown or contradict each other."""


class InputError(KldivError, ValueError):
    """An input that can't be used."""


class InputNotFound(InputError, FileNotFoundError):
    """There is no such file."""


class FormatError(InputError):
    """A file that is not what it claims to be, is damaged, or is unsafe to read."""


class DatasetError(InputError, LookupError):
    """A container has no such array, or several and none was named."""


class InputChanged(InputError):
    """A file changed while it was read."""


class ShapeMismatch(InputError):
    """Shapes that do not belong together."""


class AxisError(InputError, IndexError):
    """An array has no such axis."""


class DomainError(InputError):
    """Values outside the range that a loss is defined on."""


class OutputError(KldivError, OSError):
    """An output that can't be written."""


class WorkerDied(KldivError):
    """A process that computed was killed, or crashed."""


class ClusterGone(WorkerDied):
    """A cluster that computed has no workers any more, or can't be reached."""


def sendable(error: BaseException) -> BaseException:
    """The error with a note that tells where it was raised; its text alone if it can't be pickled."""
    import pickle
    import traceback

    text = "".join(traceback.format_exception(error))
    error.add_note(text)
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever an error's own class does there
        return RuntimeError(text)
    return error
