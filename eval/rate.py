"""Two sets of answers rated by people: a local page shows both blind, in random order, and takes votes by keyboard.

    python -m eval.rate a.json b.json --data test.jsonl --out votes.jsonl [--rater NAME]
    python -m eval.rate a.json --data test.jsonl --out votes.jsonl      # against the reference answers of the data
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
from common.files import read_json, read_objects
from common.options import option, parse
from eval.preference import summarise, table
from eval.votes import Session, Votes, items_of, task_id

_LARGEST_VOTE = 4096  # bytes
REFERENCES = ("output", "canonical_solution", "code")  # where instruction pairs, code tasks and MBPP have the answer
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


def _prompts(rows: list[dict]) -> dict[str, str]:
    """task id -> instruction, prompt and input of the row."""
    shown = ("instruction", "prompt", "input")
    return {task_id(row): "\n\n".join(filter(None, (row.get(key) for key in shown))) for row in rows}


def _references(rows: list[dict], path: str | None) -> dict:
    """The data's own answers, in the form of a result. UserError if there are none."""
    answers = [next((row[key] for key in REFERENCES if isinstance(row.get(key), str)), None) for row in rows]
    if not any(answers):
        raise UserError(
            f"{path or 'no data'}: no reference answers ({', '.join(REFERENCES)}) to compare with; give a second "
            "result, or --data with such answers"
        )
    return {"results": [{"id": task_id(row), "output": answer} for row, answer in zip(rows, answers, strict=True)]}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    a: str = option(help="result of eval.instruct or eval.code, JSON", positional=True)
    b: str | None = option(
        None, "another result, on the same tasks (default: the reference answers of the data)", positional=True
    )
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
    """Command line: serve until Ctrl-C, then print the preference and the agreement."""
    options = parse(Options, description=__doc__)
    a = read_json(options.a)
    settings = a.get("settings", {})
    data = options.data or settings.get("data") or settings.get("tasks")
    if data and not options.data and not Path(data).exists():
        data = None  # the result was made elsewhere: the tasks are shown by their ids
    rows = read_objects(data) if data else []
    b = read_json(options.b) if options.b else _references(rows, data)
    items, alike = items_of(a, b, _prompts(rows))
    if options.count:
        items = random.Random(options.seed).sample(items, min(options.count, len(items)))
    sides = {"a": options.a, "b": options.b or data}
    hashes = {f"{side}_sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest() for side, file in sides.items()}
    votes = Votes.open(options.out, {"votes_on": hashes})
    if not options.summary:
        session = Session(items, votes, rater=options.rater, seed=options.seed)
        server, address = serve(session, port=options.port)
        state = session.state()
        print(
            f"{len(items)} tasks ({alike} with equal answers omitted) · {state['done']} of {state['total']} votes given"
        )
        print(f"open {address} and vote; Ctrl-C stops, and a rerun resumes", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
        finally:
            server.server_close()
    print(table(summarise(list(votes.rows.values()))) or "no vote yet")


if __name__ == "__main__":
    sys.exit(run_command(main))
