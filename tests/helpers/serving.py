"""A web server of a test's own, with the habits of real ones."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """Say nothing where a client hangs up."""


class Server:
    """Serves bytes by path.

    It may break off, know no ranges, not look at If-Range, tell nothing of a version or of the length, or be slow.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: list[int] = []  # bytes of each answer to come after which the connection breaks off
        self.ranges = True
        self.if_range = True
        self.etag = True
        self.length = True
        self.delay = 0.0  # seconds after each byte
        self.sent = 0  # bytes of files
        self.asked: list[tuple[str, str | None]] = []  # path, Range
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, to: BaseHTTPRequestHandler) -> None:
        said = to.headers.get("Range")
        self.asked.append((to.path, said))
        if to.path not in self.files:
            to.send_error(404)
            return
        content = self.files[to.path]
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if said and self.ranges and (not self.if_range or to.headers.get("If-Range") == etag):
            start = int(said.removeprefix("bytes=").removesuffix("-"))
        to.send_response(416 if start >= len(content) > 0 else 206 if start else 200)
        if start >= len(content):
            to.send_header("Content-Range", f"bytes */{len(content)}")
        elif start:
            to.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.etag:
            to.send_header("ETag", etag)
        to.send_header("Content-Encoding", "gzip")  # as servers say of .gz files: it must not be unpacked
        if self.length:
            to.send_header("Content-Length", str(max(0, len(content) - start)))
        to.end_headers()
        rest = content[start:]
        rest = rest[: self.break_after.pop(0)] if self.break_after else rest
        self.sent += len(rest)
        for i in range(len(rest)) if self.delay else ():
            to.wfile.write(rest[i : i + 1])
            time.sleep(self.delay)
        to.wfile.write(b"" if self.delay else rest)
        to.close_connection = True


@contextmanager
def running() -> Iterator[Server]:
    """Serve meanwhile."""
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.http.shutdown()
        thread.join()
        found.http.server_close()
