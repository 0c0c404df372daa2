"""Two sets of answers, judged by people: a local page shows both blind, in random order, and takes votes by keyboard.

    python -m eval.rate a.json b.json --data test.jsonl --out votes.jsonl [--rater NAME]
    python -m eval.rate a.json b.json --out votes.jsonl --summary

Each vote is on disk before the page goes on; starting again goes on where the rater stopped. Several raters share one
file of votes, one after the other, and their agreement is reported.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import random
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from pathlib import Path
from threading import Lock

from common.console import UserError, run_command
from common.files import append_jsonl, read_json, read_jsonl, resume_jsonl
from common.highlight import pieces
from common.options import option, parse
from eval.stats import bootstrap_mean

QUESTIONS = {
    "clarity": "Which one is clearer?",
    "readability": "Which one is easier to read?",
    "adherence": "Which one does better what was asked?",
}
CHOICES = ("A", "B", "tie")
_WORTH = {"A": 0.0, "tie": 0.5, "B": 1.0}  # of a vote, as the preference for B
_LARGEST_VOTE = 4096  # bytes
_PAGE = Path(__file__).with_name("rate.html")


@dataclass(frozen=True)
class Item:
    """One task with the answers of both sides."""

    id: str
    prompt: str
    a: str
    b: str


@dataclass
class Votes:
    """The file of votes, a line each: {"id", "rater", "question", "choice": "A", "B" or "tie", "left", "time"}.

    The first line says of which answers they are; a later vote of the same rater on the same question replaces an
    earlier one. Raises UserError for a file that belongs to other answers.
    """

    path: Path
    header: dict
    rows: dict[tuple[str, str, str], dict] = field(default_factory=dict)  # (id, rater, question) -> its last vote
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def open(cls, path: Path | str, header: dict) -> Votes:
        """The votes in a file, which is begun where there is none."""
        votes = cls(Path(path), header)
        if not votes.path.exists():
            append_jsonl(votes.path, [header])
            return votes
        first, *rows = resume_jsonl(votes.path) or [{}]
        if first != header:
            raise UserError(f"{path} holds votes on other answers; give another --out, or the answers that it is of")
        for row in rows:
            votes.rows[row["id"], row["rater"], row["question"]] = row
        return votes

    def add(self, row: dict) -> None:
        """Write one vote through to the disk."""
        with self.lock:
            append_jsonl(self.path, [row])
            self.rows[row["id"], row["rater"], row["question"]] = row


def items_of(a: dict, b: dict, prompts: dict[str, str]) -> tuple[list[Item], int]:
    """The tasks that both results answer differently, and how many they answer alike.

    a, b     results of eval.instruct or eval.code; the greedy answer of each task is shown
    prompts  id -> what was asked; where it is missing, the id stands for it
    Raises UserError where no task is left.
    """
    one, other = _greedy_answers(a), _greedy_answers(b)
    shared = [i for i in one if i in other]
    items = [Item(i, prompts.get(i, i), one[i], other[i]) for i in shared if one[i].strip() != other[i].strip()]
    if not items:
        raise UserError(f"nothing to rate: the results share {len(shared)} tasks, and their answers are the same")
    return items, len(shared) - len(items)


def _greedy_answers(result: dict) -> dict[str, str]:
    answers: dict[str, str] = {}
    for row in result.get("results", []):
        text = row.get("output", row.get("completion"))
        if isinstance(text, str) and row.get("sample", "greedy") in ("greedy", None):
            answers.setdefault(str(row.get("id", row.get("task_id"))), text)
    if not answers:
        raise UserError("a result holds no greedy answer; give files that eval.instruct or eval.code wrote")
    return answers


class Session:
    """What one rater is shown: the order of the tasks and the sides, drawn from the seed, the rater and the task."""

    def __init__(self, items: list[Item], votes: Votes, *, rater: str, seed: int = 0) -> None:
        self.votes, self.rater, self.seed = votes, rater, seed
        self.items = sorted(items, key=lambda item: self._draw("order", item.id))
        self.by_id = {item.id: item for item in items}

    def _draw(self, what: str, i: str) -> float:
        return random.Random(f"{self.seed}/{self.rater}/{what}/{i}").random()

    def left(self, item: Item) -> str:
        """Which side, "A" or "B", stands on the left."""
        return "A" if self._draw("side", item.id) < 0.5 else "B"

    def state(self) -> dict:
        """The first question without a vote, as the page may see it: nothing tells which side is which.

        Its texts are cut into the pieces of common/highlight.py.
        """
        open_ones = [
            (item, question) for item in self.items for question in QUESTIONS if not self._voted(item, question)
        ]
        total = len(self.items) * len(QUESTIONS)
        state = {"done": total - len(open_ones), "total": total, "item": None}
        if open_ones:
            item, question = open_ones[0]
            left, right = (item.a, item.b) if self.left(item) == "A" else (item.b, item.a)
            texts = {"prompt": pieces(item.prompt), "left": pieces(left), "right": pieces(right)}
            told = {"key": self.items.index(item), "question": question, "asked": QUESTIONS[question]}
            state["item"] = told | texts
        return state

    def _voted(self, item: Item, question: str) -> bool:
        row = self.votes.rows.get((item.id, self.rater, question))
        return row is not None and row["choice"] is not None

    def vote(self, key: int, question: str, choice: str) -> None:
        """Store one vote. choice: "left", "right" or "tie". Raises ValueError for what the page would not send."""
        if question not in QUESTIONS or choice not in ("left", "right", "tie") or key not in range(len(self.items)):
            raise ValueError("no such vote")
        item = self.items[key]
        left = self.left(item)
        side = "tie" if choice == "tie" else left if choice == "left" else "AB".replace(left, "")
        self._store(item.id, question, side, left)

    def undo(self) -> None:
        """Take back this rater's latest vote; the line stays in the file, a line with no choice follows it."""
        mine = [row for row in self.votes.rows.values() if row["rater"] == self.rater and row["choice"] is not None]
        if mine:
            last = max(mine, key=lambda row: row["time"])
            self._store(last["id"], last["question"], None, last["left"])

    def _store(self, i: str, question: str, choice: str | None, left: str) -> None:
        told = {"id": i, "rater": self.rater, "question": question, "choice": choice, "left": left}
        self.votes.add({**told, "time": time.time()})


def summarise(rows: Sequence[dict]) -> dict:
    """Preference and agreement by question.

    Returns question -> {"n" (tasks), "votes": choice -> count, "preference" (for B; a tie is a half), "interval" (95 %,
    tasks resampled, each the mean of its raters), "distinguishable", "left" (share of the votes for a side that went to
    the left one: far from a half, the raters did not look), "raters", "agreement" (share of pairs of raters that say
    the same), "alpha" (Krippendorff's, nominal)}; the last two are None where no task has two raters.
    """
    summary = {}
    for question in QUESTIONS:
        by_task: dict[str, list[dict]] = defaultdict(list)
        for row in rows:
            if row["question"] == question and row["choice"] is not None:
                by_task[row["id"]].append(row)
        if not by_task:
            continue
        votes = [row for listed in by_task.values() for row in listed]
        means = [sum(_WORTH[row["choice"]] for row in listed) / len(listed) for listed in by_task.values()]
        preference, low, high = bootstrap_mean(means)
        choices = [[row["choice"] for row in listed] for listed in by_task.values()]
        pairs = [one == other for listed in choices for one, other in combinations(listed, 2)]
        sided = [row["choice"] == row["left"] for row in votes if row["choice"] != "tie"]
        summary[question] = {
            "n": len(by_task),
            "votes": {choice: sum(row["choice"] == choice for row in votes) for choice in CHOICES},
            "preference": preference,
            "interval": [low, high],
            "distinguishable": len(by_task) > 1 and not low <= 0.5 <= high,
            "left": sum(sided) / len(sided) if sided else None,
            "raters": len({row["rater"] for row in votes}),
            "agreement": sum(pairs) / len(pairs) if pairs else None,
            "alpha": krippendorff_alpha(choices),
        }
    return summary


def krippendorff_alpha(units: Sequence[Sequence]) -> float | None:
    """Krippendorff's alpha for nominal data (Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011).

    units  the values that each unit was given, however many raters it had
    Returns 1 for full agreement, 0 for chance; None where no unit has two values or all values are one.
    """
    units = [unit for unit in units if len(unit) > 1]
    totals = Counter(value for unit in units for value in unit)
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())
    if not expected:
        return None
    observed = sum((len(u) ** 2 - sum(c * c for c in Counter(u).values())) / (len(u) - 1) for u in units)
    return 1 - (n - 1) * observed / expected


def table(summary: dict) -> str:
    """The summary as text, a line a question."""
    lines = []
    for question, of in summary.items():
        low, high = of["interval"]
        verdict = ("B preferred" if low > 0.5 else "A preferred") if of["distinguishable"] else "not distinguishable"
        agreed = "" if of["agreement"] is None else f" · raters agree on {of['agreement']:.0%}"
        agreed += "" if of["alpha"] is None else f", alpha {of['alpha']:.2f}"
        counts = " ".join(f"{choice} {count}" for choice, count in of["votes"].items())
        shown = f"prefers B {of['preference']:.3f} [{low:.3f}, {high:.3f}]  n = {of['n']}"
        lines.append(f"{question:12} {shown}  ({counts}) · {verdict}{agreed}")
    return "\n".join(lines)


class _Handler(BaseHTTPRequestHandler):
    """The page and its calls. Only a request that knows the token, which stands in the printed address, counts."""

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
            told = json.loads(self.rfile.read(min(length, _LARGEST_VOTE)) or b"{}")
            if self.path == f"/{self.token}/vote":
                self.session.vote(told["key"], told["question"], told["choice"])
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
        """A line a request would bury the address."""


def serve(session: Session, *, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server for this machine alone, not yet running, and the address to open. port 0: any free one."""
    token = secrets.token_urlsafe(12)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, session, token))
    except OSError as error:
        raise UserError(f"port {port} is not to be had ({error.strerror}); give another --port") from error
    return server, f"http://127.0.0.1:{server.server_port}/{token}/"


def _prompts(path: str | None) -> dict[str, str]:
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
        print(f"open {address} and vote; Ctrl-C ends, and starting again goes on", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
        finally:
            server.server_close()
    print(table(summarise(list(votes.rows.values()))) or "no vote yet")


if __name__ == "__main__":
    sys.exit(run_command(main))
