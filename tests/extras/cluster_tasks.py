"""What the tests of clusters let workers do, which import it from here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from kldiv_cli.errors import InputError


def doubled() -> Callable[[int], int]:
    return lambda task: 2 * task


def dying_at(fatal: int) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(30)
        return 2 * task

    return work


def dying_again(before: Path) -> Callable[[int], int]:
    """Dies of the first task when that is done a second time."""

    def work(task: int) -> int:
        if task == 0 and before.exists():
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(30)
        before.touch()
        return task

    return work


def slow(seconds: float) -> Callable[[int], int]:
    def work(task: int) -> int:
        time.sleep(seconds)
        return task

    return work


def marking(file: Path) -> Callable[[int], int]:
    def work(task: int) -> int:
        with file.open("a") as stream:
            stream.write(f"{task}\n")
        time.sleep(0.05)
        return task

    return work


def numbered() -> Callable[[int], tuple[int, int, int]]:
    """By the process, and by how many tasks this worker did before."""
    done = 0

    def work(task: int) -> tuple[int, int, int]:
        nonlocal done
        done += 1
        time.sleep(0.002)
        return os.getpid(), done, task

    return work


def failing() -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 7:
            raise InputError("task 7: is bad")
        return task

    return work


def never_made() -> Callable[[int], int]:
    raise InputError("no worker can be made")


def dying() -> Callable[[int], int]:
    def work(task: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return task

    return work


def large(size: int) -> Callable[[int], bytes]:
    return lambda task: bytes([task % 256]) * size
