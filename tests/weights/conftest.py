"""A server of one file that can resume, break off, or send rubbish."""

import dataclasses
import http.server
import re
import threading

import pytest


@dataclasses.dataclass
class Server:
    """What it serves at any path, how, and what it was asked for."""

    content: bytes = b""
    home: str = ""
    resumes: bool = True
    """Whether it heeds Range."""
    cut: int | None = None
    """Breaks off each answer after so many bytes."""
    status: int | None = None
    """Answers this, whatever is asked."""
    asked: list[str] = dataclasses.field(default_factory=list)
    """Path and range of each GET."""


@pytest.fixture
def server():
    served = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._head(0)

        def do_GET(self):
            asked = self.headers.get("Range")
            served.asked.append(f"{self.path} {asked}")
            begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
            begin *= served.resumes
            if self._head(begin):
                self.wfile.write(served.content[begin:][: served.cut])
            self.close_connection = True

        def _head(self, begin):
            size = len(served.content)
            beyond = begin and begin >= size
            usual = 416 if beyond else 206 if begin else 200
            self.send_response(served.status or usual)
            if begin and not beyond:
                self.send_header("Content-Range", f"bytes {begin}-{size - 1}/{size}")
            self.send_header("Content-Length", str(0 if beyond else size - begin))
            self.end_headers()
            return served.status is None and not beyond

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(
            target=listening.serve_forever, args=(0.01,), daemon=True
        ).start()
        served.home = f"http://127.0.0.1:{listening.server_port}/models/"
        yield served
        listening.shutdown()
