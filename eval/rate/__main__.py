"""Answers rated by people: two sets compared blind on a local page, or one set from 1 to 5 on a page without a server.

    python -m eval.rate a.json b.json --data test.jsonl --out votes.jsonl [--rater NAME]
    python -m eval.rate a.json --data test.jsonl --out votes.jsonl      # against the reference answers of the data
    python -m eval.rate a.json b.json --out votes.jsonl --summary
    python -m eval.rate a.json --page rate.html --count 30              # from 1 to 5: send the page to the raters
    python -m eval.rate a.json --ratings ann.json bob.json --out rated.json

Each vote of a comparison is on disk before the page moves on; rerun the command to resume. Several raters can share one
file of votes, one after the other. Of ratings, each rater saves a file from the page. The agreement of several raters
is reported.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.files import read_json, write_json, write_text
from common.options import as_settings, option, parse
from common.shuffle import seeded_order
from eval.environment import environment
from eval.rate import preference, ratings
from eval.rate.asked import Asked, read_asked
from eval.rate.server import serve
from eval.rate.votes import Session, Votes, greedy_answers, items_of

BLIND, SCALE = "two results, compared blind", "one result, rated from 1 to 5"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of this command."""

    GROUPS = ("options", BLIND, SCALE)

    a: str = option(help="result of eval.instruct or eval.code, JSON", positional=True)
    b: str | None = option(
        None, "another result, on the same tasks (default: the reference answers of the data)", positional=True
    )
    data: str | None = option(
        None, "the tasks, JSON Lines, to show what was asked (default: the file that A names)", metavar="FILE"
    )
    out: Path | None = option(
        None, "file to append the votes to (default: votes.jsonl); with --ratings, the result, JSON", metavar="FILE"
    )
    count: int | None = option(None, "tasks to rate, drawn by the seed (default: all)", least=1)
    seed: int = option(0, "seed of which tasks are drawn, of their order, and of which side is left")
    rater: str = option(getpass.getuser(), "name of the rater", BLIND)
    port: int = option(0, "port of the local page (0: any free one)", BLIND)
    summary: bool = option(False, "print what the votes say so far, and exit", BLIND)
    page: Path | None = option(
        None, "write the page on which clarity, readability and adherence are rated; it needs no network and no server",
        SCALE, metavar="FILE",
    )  # fmt: skip
    ratings: tuple[str, ...] = option(
        (), "files saved from that page, one a rater: means, intervals and agreement", SCALE, metavar="FILE"
    )

    def __post_init__(self) -> None:
        """UserError for options that contradict each other."""
        if self.page and self.ratings:
            raise UserError("--page makes what --ratings reads later: give one of them")
        if self.b and (self.page or self.ratings):
            raise UserError("--page and --ratings are for one result; two are compared blind, without them")


def main() -> None:
    """Command line."""
    options = parse(Options, description=__doc__)
    result = read_json(options.a)
    if options.page:
        write_page(options, result, options.page)
    elif options.ratings:
        print_ratings(options, result)
    else:
        compare_blind(options, result)


def write_page(options: Options, result: dict, page: Path) -> None:
    """The page of `ratings.page`, for the greedy answers of a result."""
    asked, answers = read_asked(result, options.data), greedy_answers(result)
    drawn = seeded_order(list(answers), options.seed)[: options.count]
    text = ratings.page({i: answers[i] for i in drawn}, asked.prompts, rated=_sha256(options.a), seed=options.seed)
    write_text(page, text)
    print(f"{len(drawn)} of {len(answers)} answers -> {page}: open it in a browser, rate, save the ratings")
    print(f"then: python -m eval.rate {options.a} --ratings ratings-NAME.json [...]")


def print_ratings(options: Options, result: dict) -> None:
    """What the files of ratings say, as a table and, with --out, as a result that eval.compare reads."""
    of_raters = ratings.read_ratings(options.ratings, greedy_answers(result), rated=_sha256(options.a))
    summary = ratings.summarise(of_raters, seed=options.seed)
    print(ratings.table(summary))
    print("raters       " + ", ".join(f"{rater} ({len(rated)} answers)" for rater, rated in of_raters.items()))
    if options.out:
        details = {"settings": as_settings(options, without=("out",)), "environment": environment(ratings=of_raters)}
        write_json(options.out, summary | {"sandbox": None} | details)
        print(f"written to {options.out}")


def compare_blind(options: Options, result: dict) -> None:
    """Serve the comparison until Ctrl-C, then print the preference and the agreement."""
    asked = read_asked(result, options.data)
    other = read_json(options.b) if options.b else asked.as_result()
    items, alike = items_of(result, other, asked.prompts)
    drawn = set(seeded_order([item.id for item in items], options.seed)[: options.count])
    items = [item for item in items if item.id in drawn]
    hashes = {"a_sha256": _sha256(options.a), "b_sha256": _sha256(options.b) if options.b else _of_references(asked)}
    votes = Votes.open(options.out or "votes.jsonl", {"votes_on": hashes})
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
    print(preference.table(preference.summarise(list(votes.rows.values()))) or "no vote yet")


def _sha256(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _of_references(asked: Asked) -> str:
    return hashlib.sha256(json.dumps(asked.references, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(run_command(main))
