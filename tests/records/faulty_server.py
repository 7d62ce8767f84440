"""An HTTP mirror on loopback that fails as it is told to, and remembers what it was asked."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[str, int], str]
"""From a path and how often it was asked for before: "", 503, 404, cut, drop or wrong."""


@dataclass
class FaultyMirror:
    """What the server is, where it is, and its log of (path, how it was answered)."""

    url: str = ""
    log: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda path, before: ""

    def asked(self, path: str) -> int:
        """Return how often a path was asked for."""
        return sum(1 for name, _ in self.log if name == path)

    def served(self) -> list[str]:
        """Return the paths whose true bytes were sent, in the order of sending."""
        return [name for name, answer in self.log if answer == ""]


@contextmanager
def faulty_mirror(folder: Path) -> Iterator[FaultyMirror]:
    """Serve a folder until the block ends."""
    mirror = FaultyMirror()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder, mirror))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(folder: Path, mirror: FaultyMirror) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._send(headers_only=True)

        def do_GET(self) -> None:
            self._send(headers_only=False)

        def _send(self, *, headers_only: bool) -> None:
            path = self.path.removeprefix("/bucket").lstrip("/").split("?")[0]
            fault = ""
            if not headers_only:
                with lock:
                    fault = mirror.fault(path, mirror.asked(path))
                    mirror.log.append((path, fault))
            file = folder / path
            content = file.read_bytes() if file.is_file() else None
            if fault == "drop":
                self.close_connection = True
                return
            if fault in ("503", "404") or content is None:
                self.send_response(int(fault) if fault else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if fault == "cut":
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            elif not headers_only:
                self.wfile.write(content[::-1] if fault == "wrong" else content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
