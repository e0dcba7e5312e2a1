"""Servers that never answer: every command ends when it is told to, and says nothing of it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import hdf5, npy
from servers import Asked, ObjectServer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX has them")

LONG = 60.0
"""Seconds after which a command is taken to go on; a server may be waited for much longer."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SilentServer:
    """Accepts every connection, and says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.was_reached = threading.Event()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connections.append(self._socket.accept()[0])
                self.was_reached.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(LONG)
        for connection in (self._socket, *self._connections):
            connection.close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    server = SilentServer()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFROMENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield server
    server.close()


def check_ends(arguments: list[str], number: signal.Signals, reached: threading.Event) -> None:
    """Start a command, tell it to end once it waits for a server, and look how it does."""
    command = [sys.executable, "-m", "kldiv_cli", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert reached.wait(LONG)
        process.send_signal(number)
        said = process.communicate(timeout=LONG)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, *said) == (128 + number, "", "")


def arguments_of(command: str, url: str, directory: Path) -> list[str]:
    if command != "batch":
        return [command, url] if command == "inspect" else [command, url, url]
    pairs = directory / "pairs.csv"
    pairs.write_text(f"predictions,targets\n{url},{url}\n")
    return [command, str(pairs)]


def put_arrays(web: ObjectServer, directory: Path, rows: int) -> None:
    """Put the same numbers onto a server in several formats."""
    zarr = pytest.importorskip("zarr")
    array = np.random.default_rng(1).random((rows, 100))
    zarr.create_array(directory / "x.zarr", data=array, chunks=(1000, 100))
    for file in (directory / "x.zarr").rglob("*"):
        if file.is_file():
            web.objects[f"/{file.relative_to(directory).as_posix()}"] = file.read_bytes()
    web.objects |= {"/x.npy": npy(array), "/x.h5": hdf5(array, chunks=(1000, 100), compression="gzip")}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("address", ["{web}/x.npy", "{web}/x.zarr", "s3://dumps/x.npy", "s3://dumps/x.zarr"])
@pytest.mark.parametrize("command", ["compute", "batch", "inspect"])
def test_a_command_ends_while_a_server_keeps_it_waiting(
    silent: SilentServer, tmp_path: Path, command: str, address: str, number: signal.Signals
) -> None:
    pytest.importorskip("zarr")
    url = address.format(web=silent.url)
    check_ends(arguments_of(command, url, tmp_path), number, silent.was_reached)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", ["x.npy", "x.zarr"])
@pytest.mark.parametrize("command", ["compute", "batch", "inspect"])
def test_a_command_ends_where_the_server_falls_silent_while_an_array_is_read(
    web: ObjectServer, tmp_path: Path, command: str, name: str, number: signal.Signals
) -> None:
    put_arrays(web, tmp_path, 3000)
    reached, answers = threading.Event(), threading.Event()

    def before(asked: Asked) -> None:
        if "/c/" in asked.path or (name == "x.npy" and "bytes=0-" not in asked.headers["range"]):
            reached.set()
            answers.wait(2 * LONG)

    web.before = before
    one = ["--workers", "1"] if command == "compute" else []
    try:
        check_ends([*arguments_of(command, f"{web.url}/{name}", tmp_path), *one], number, reached)
    finally:
        answers.set()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", ["x.npy", "x.h5", "x.zarr"])
def test_a_computation_on_threads_ends_where_the_server_falls_silent(
    web: ObjectServer, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    put_arrays(web, tmp_path, 30_000)
    reached, answers = threading.Event(), threading.Event()
    asked_for: list[Asked] = []

    def before(asked: Asked) -> None:
        asked_for.append(asked)
        if len(asked_for) > 6:
            reached.set()
            answers.wait(2 * LONG)

    web.before = before
    try:
        check_ends(["compute", *[f"{web.url}/{name}"] * 2, "--workers", "2"], number, reached)
    finally:
        answers.set()
