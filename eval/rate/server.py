"""The local page on which two sets of answers are compared: a server on the loopback interface."""

from __future__ import annotations

import json
import secrets
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common.console import UserError
from common.html import Safe, template
from eval.rate.votes import Session

_LARGEST_VOTE = 4096  # bytes
_HERE = Path(__file__).parent
STYLE = Safe((_HERE / "style.css").read_text(encoding="utf-8"))  # of both pages


class _Handler(BaseHTTPRequestHandler):
    """Serves the page and its calls, to requests with the secret token of the printed address."""

    def __init__(self, session: Session, token: str, *arguments) -> None:
        self.session, self.token = session, token
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path == f"/{self.token}/":
            self._send(200, _page(), "text/html; charset=utf-8")
        elif self.path == f"/{self.token}/state":
            self._send_state()
        else:
            self._send(404, b"", "text/plain")

    def do_POST(self) -> None:
        try:
            length = int(self.headers.get("Content-Length", 0))
            sent = json.loads(self.rfile.read(min(length, _LARGEST_VOTE)) or b"{}")
            if self.path == f"/{self.token}/vote":
                self.session.vote(sent["key"], sent["question"], sent["choice"])
            elif self.path == f"/{self.token}/undo":
                self.session.undo()
            else:
                return self._send(404, b"", "text/plain")
        except (ValueError, KeyError, TypeError):
            return self._send(400, b"", "text/plain")
        self._send_state()

    def _send_state(self) -> None:
        self._send(200, json.dumps(self.session.state()).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'none'; connect-src 'self'; img-src data:; "
                         "script-src 'unsafe-inline'; style-src 'unsafe-inline'")  # fmt: skip
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        """Print nothing: one line per request would bury the address."""


def _page() -> bytes:
    return template(_HERE / "compare.html.j2")(style=STYLE).encode()


def serve(session: Session, *, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server on the loopback interface, not yet running, and the address to open. port 0: any free port."""
    token = secrets.token_urlsafe(12)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, session, token))
    except OSError as error:
        raise UserError(f"port {port} is not available ({error.strerror}); give another --port") from error
    return server, f"http://127.0.0.1:{server.server_port}/{token}/"
