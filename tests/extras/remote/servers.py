"""Servers on this machine that tests read from: moto for S3, and one of our own for HTTP and GCS."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request that a server got."""

    method: str
    path: str
    """With the query."""
    headers: dict[str, str]
    """Names in lower case."""

    @property
    def range_bytes(self) -> int | None:
        """How many were asked for, or None for the whole object."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return None if found is None else int(found[2]) - int(found[1]) + 1


class ObjectServer(http.server.ThreadingHTTPServer):
    """Serves `objects` by their path, in ranges; below a number, that status.

    What differs from a good server is switched on by name.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.asked: list[Asked] = []
        self.faults: set[str] = set()
        """``no ranges``, ``no etags``, ``no dates``, or ``fail N``: so many times 503 first."""
        self.date = "Tue, 24 Nov 2026 19:31:22 GMT"
        self.reads_query = False
        """Whether objects are named by their path and query."""
        self.before: Callable[[Asked], None] = lambda asked: None
        """Called before each answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    server: ObjectServer

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        self.server.before(asked)
        self.server.asked.append(asked)
        status, headers, body = self._answer(asked)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if asked.method != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, asked: Asked) -> tuple[int, dict[str, str], bytes]:
        faults = self.server.faults
        path = asked.path if self.server.reads_query else asked.path.partition("?")[0]
        path = urllib.parse.unquote(path)
        first = path.split("/")[1]
        if first.isdigit():
            return int(first), {}, b"<Error><Code>ExpiredToken</Code></Error>"
        failing = next((fault for fault in faults if fault.startswith("fail ")), None)
        if failing is not None:
            faults.remove(failing)
            faults |= {f"fail {int(failing[5:]) - 1}"} if failing != "fail 1" else set()
            return 503, {}, b""
        if path not in self.server.objects:
            return 404, {}, b""
        body = self.server.objects[path]
        headers = {} if "no dates" in faults else {"last-modified": self.server.date}
        if "no etags" not in faults:
            headers["etag"] = f'"{hash(body):x}"'
            if asked.headers.get("if-match", headers["etag"]) != headers["etag"]:
                return 412, {}, b""
        found = re.fullmatch(r"bytes=(\d*)-(\d+)", asked.headers.get("range", ""))
        if found is None or "no ranges" in faults:
            return 200, headers, body
        stop = min(int(found[2]) + 1, len(body)) if found[1] else len(body)
        start = int(found[1]) if found[1] else max(0, len(body) - int(found[2]))
        if start >= len(body):
            return 416, {"content-range": f"bytes */{len(body)}"}, b""
        headers["content-range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        return 206, headers, body[start:stop]

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    server = ObjectServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class S3Server(NamedTuple):
    """moto, and what it was asked."""

    url: str
    asked: list[Asked]


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: Any) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)
    asked: list[Asked] = []

    def recorded(environ: dict[str, Any], start_response: Any) -> Any:
        names = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        asked.append(Asked(environ["REQUEST_METHOD"], environ["PATH_INFO"], names))
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, recorded, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield S3Server(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        thread.join()
