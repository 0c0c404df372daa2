"""Two sets of answers rated by people: a local page shows both blind, in random order, and takes votes by keyboard.

    python -m eval.rate a.json b.json --data test.jsonl --out votes.jsonl [--rater NAME]
    python -m eval.rate a.json b.json --out votes.jsonl --summary

Each vote is on disk before the page moves on; rerun the command to resume. Several raters can share one file of votes,
one after the other, and their agreement is reported.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import random
import secrets
import sys
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_json, read_jsonl
from common.options import option, parse
from eval.preference import summarise, table
from eval.votes import Session, Votes, items_of

_LARGEST_VOTE = 4096  # bytes
_PAGE = Path(__file__).with_name("rate.html")


class _Handler(BaseHTTPRequestHandler):
    """Serves the page and its calls, to requests with the secret token of the printed address."""

    def __init__(self, session: Session, token: str, *arguments) -> None:
        self.session, self.token = session, token
        super().__init__(*arguments)

    def do_GET(self) -> None:
        if self.path == f"/{self.token}/":
            self._send(200, _PAGE.read_bytes(), "text/html; charset=utf-8")
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


def serve(session: Session, *, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server on the loopback interface, not yet running, and the address to open. port 0: any free port."""
    token = secrets.token_urlsafe(12)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, session, token))
    except OSError as error:
        raise UserError(f"port {port} is not available ({error.strerror}); give another --port") from error
    return server, f"http://127.0.0.1:{server.server_port}/{token}/"


def _prompts(path: str | None) -> dict[str, str]:
    """task id -> instruction, prompt and input of the row."""
    if path is None:
        return {}
    rows = read_jsonl(path)
    texts = (
        (row, "\n\n".join(filter(None, (row.get(key) for key in ("instruction", "prompt", "input"))))) for row in rows
    )
    return {str(row.get("id", row.get("task_id"))): text for row, text in texts}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    a: str = option(help="result of eval.instruct or eval.code, JSON", positional=True)
    b: str = option(help="another result, on the same tasks", positional=True)
    data: str | None = option(
        None, "the tasks, JSON Lines, to show what was asked (default: the file that A names)", metavar="FILE"
    )
    out: str = option("votes.jsonl", "file to append the votes to", metavar="FILE")
    rater: str = option(getpass.getuser(), "name of the rater")
    count: int | None = option(None, "tasks to rate, drawn by the seed (default: all)")
    port: int = option(0, "port of the local page (0: any free one)")
    seed: int = option(0, "seed of the order of the tasks, and of which side is left")
    summary: bool = option(False, "print what the votes say so far, and exit")


def main() -> None:
    """Command line: serve until Ctrl-C, then say what the votes say."""
    options = parse(Options, description=__doc__)
    a, b = read_json(options.a), read_json(options.b)
    data = options.data or a.get("settings", {}).get("data")
    items, alike = items_of(a, b, _prompts(data if data and (options.data or Path(data).exists()) else None))
    if options.count:
        items = random.Random(options.seed).sample(items, min(options.count, len(items)))
    hashes = {f"{side}_sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest() for side, file in
              (("a", options.a), ("b", options.b))}  # fmt: skip
    votes = Votes.open(options.out, {"votes_on": hashes})
    if not options.summary:
        session = Session(items, votes, rater=options.rater, seed=options.seed)
        server, address = serve(session, port=options.port)
        state = session.state()
        print(f"{len(items)} tasks, {alike} answered alike left out · {state['done']} of {state['total']} votes given")
        print(f"open {address} and vote; Ctrl-C stops; rerun it to resume", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
        finally:
            server.server_close()
    print(table(summarise(list(votes.rows.values()))) or "no vote yet")


if __name__ == "__main__":
    sys.exit(run_command(main))
