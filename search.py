"""Search a repository by meaning and by words.

    python search.py index path/to/repository --out index        # run again, it encodes only what has changed
    python search.py index path/to/repository --out index --fast # in seconds, less well by meaning
    python search.py query index "shortest path between two nodes"
    python search.py query index                                 # interactive; a result's number opens it

    python search.py serve index --http                          # a page on this machine, and tools for agents

Without a terminal, queries are read from stdin, one per line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common.console import UserError, run_command
from common.options import option, parse_subcommand
from data.corpus.languages import GRAMMARS
from data.corpus.locate import KINDS
from data.search.contents import Contents, read_contents
from data.search.find import BY
from data.search.index import Index, refuse_other_folder
from data.search.results import Search, open_search, search_encoder
from data.search.server import HOST, listen, mcp_server, run_web
from data.search.service import Service
from data.search.snippet import distinctive_words, head, marked, matching_line, printable
from data.search.update import earlier_index, update_by_encoder
from model.distil import cached_table
from model.encoder_options import VECTORS, EncoderOptions

DEFAULT_MODEL = "all-minilm-l6-v2"
KINDS_OF_UNITS = {"function": "functions", "class": "classes", "file": "files"}
WITH_GOTO = {"code", "code-insiders", "codium", "cursor"}  # editors with --goto FILE:LINE instead of +LINE FILE


@dataclass(frozen=True, kw_only=True)
class IndexOptions(EncoderOptions):
    """Build or update the index of a repository's functions, classes and files."""

    GROUPS = ("options", VECTORS)

    repo: str = option(help=f"{KINDS}: its files in {', '.join(GRAMMARS)}", positional=True)
    out: str = option(help="folder of the index; an existing one is brought up to date", metavar="INDEX")
    model: str | None = option(
        None, f"encoder: folder, hub id or embedded default (default: the index's own, else {DEFAULT_MODEL})"
    )
    fast: str | None = option(
        None, "use static vectors: seconds instead of minutes. only: nothing else (what --fast alone means); "
        "first: search by them while the encoder's are being made (default: the encoder's alone)",
        choices=("only", "first"), nargs="?", const="only",
    )  # fmt: skip
    tests: bool = option(False, "include test files")
    graph: bool = option(False, "build hnswlib's graph for approximate search (default: above 200,000 units)")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Print the best results of a query: location, score, first line, and the line with most of the query's words."""

    index: str = option(help="folder that `search.py index` wrote, or index/ of a train_embed.py run", positional=True)
    text: str | None = option(None, "what to look for (default: asks for queries)", positional=True)
    model: str | None = option(None, "encoder (default: the one that the index names)")
    k: int = option(10, "number of results", least=1)
    by: str = option(
        "both", "meaning: by the model; words: BM25, no model; both: ordered by the rules of ranking", choices=BY
    )
    json: bool = option(False, "print each result as a JSON object on a line, with its code")
    open: int | None = option(
        None, "open the first result, or the N-th, in $VISUAL or $EDITOR at its line (default: open none)", nargs="?",
        const=1,
    )  # fmt: skip
    exact: bool = option(False, "compare with every unit even if there is a graph to search")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")

    def __post_init__(self) -> None:
        """UserError for an empty query, and for --open without a query or past the last result."""
        if self.text is not None and not self.text.strip():
            raise UserError("the query is empty; give a TEXT to search for")
        if self.open and (self.text is None or not 1 <= self.open <= self.k):
            raise UserError("--open N needs a TEXT, and N from 1 to --k; without a TEXT, type the number at the prompt")


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Answer agents, editors and browsers (Model Context Protocol), and keep the index up to date meanwhile."""

    index: str = option(help="folder that `search.py index` wrote", positional=True)
    http: int | None = option(
        None, "serve a page and the protocol on 127.0.0.1, at this port (0: any free one) (default: the protocol on "
        "stdin and stdout)", nargs="?", const=8765, metavar="PORT",
    )  # fmt: skip
    every: float = option(2.0, "seconds between looks at the repository's files (0: never)", least=0)
    feedback: Path | None = option(
        None,
        "keep what is marked on the page as found or not found, for train_embed.py --from-feedback",
        metavar="FILE",
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")


def index_command(options: IndexOptions) -> None:
    """Build or update the index of a repository's functions, classes and files."""
    refuse_other_folder(options.out)
    earlier, unusable = earlier_index(options.out)
    if unusable:
        print(f"{unusable.partition(';')[0]}; rebuilding from scratch")
    known = {"files": earlier.files, "units": earlier.units} if earlier else {}
    contents = read_contents(options.repo, tests=options.tests, **known)
    kinds = Counter(unit["kind"] for unit in contents.units)
    counted = ", ".join(f"{kinds[kind]:,} {plural}" for kind, plural in KINDS_OF_UNITS.items())
    print(f"{len(contents.units):,} units: {counted}")
    for reason, number in contents.left_out.most_common():
        print(f"  skipped: {number:,} files ({reason})")

    # the model: as given, else that of the index, else the default
    name, made = options.model, options.overrides()
    if name is None and earlier:
        name = earlier.manifest["model"]
        made = {key: earlier.manifest[key] if value is None else value for key, value in made.items()}
    name = name or DEFAULT_MODEL
    if options.fast:
        write_vectors(options, contents, str(cached_table(name)), {}, earlier)
    if options.fast != "only":
        write_vectors(options, contents, name, made, earlier)


def write_vectors(options: IndexOptions, contents: Contents, name: str, made: dict, earlier: Index | None) -> None:
    """Encode the units that `earlier` has no vector for, and write the index."""
    encoder = search_encoder(name, options.device, **made)
    manifest, encoded = update_by_encoder(options.out, contents, encoder, earlier=earlier, graph=options.graph or None)
    print(f"{options.out}: {len(encoded):,} newly encoded by {name}")
    if cut := encoder.encoded_at_limit:
        longest = encoder.embedding.max_length
        print(f"  {cut:,} of those are truncated at {longest} tokens: only their beginning is searched by meaning")
    if manifest["recall@10"] is not None:
        print(f"  recall@10 of the graph against exact search: {manifest['recall@10']:.3f}")


def query_command(options: QueryOptions) -> None:
    """Print the best results of a query: location, score, first line, and the line with most of the query's words."""
    search = open_search(options.index, model=options.model, device=options.device, by=options.by, exact=options.exact)
    if options.text is None and sys.stdin.isatty() and not options.json:
        converse(search, options.k)
        return
    for query in sys.stdin if options.text is None else [options.text]:
        if not query.strip():
            continue
        found = search.results(query.strip(), options.k)
        if options.json:
            print("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found), end="", flush=True)
        else:
            show(search, found)
        if options.open and options.open <= len(found):
            open_in_editor(found[options.open - 1])


def serve_command(options: ServeOptions) -> None:
    """Answer until Ctrl-C, or until the other side closes stdin."""
    service = Service(open_search(options.index, device=options.device), feedback=options.feedback)
    stop = threading.Event()
    if options.every:
        threading.Thread(target=service.follow, args=(stop, options.every), daemon=True).start()
    try:
        if options.http is None:
            mcp_server(service).run()
            return
        listener = listen(options.http)
        print(f"http://{HOST}:{listener.getsockname()[1]}/  (tools for agents: /mcp); Ctrl-C ends", flush=True)
        run_web(service, listener)
    finally:
        stop.set()


def converse(search: Search, k: int) -> None:
    """Interactive: queries and results until Ctrl-D."""
    with contextlib.suppress(ImportError):  # not on Windows
        import readline  # noqa: F401 (input() then has a history and can be edited)
    print(f"{len(search.index.units):,} units. Type a query, or the number of a result to open it; Ctrl-D to end.")
    found: list[dict] = []
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line.isdecimal() and 1 <= int(line) <= len(found):
            try:
                open_in_editor(found[int(line) - 1])
            except UserError as error:
                print(error)
        elif line:
            found = search.results(line, k)
            show(search, found, numbered=True)


def show(search: Search, found: list[dict], *, numbered: bool = False) -> None:
    """One line per result, and its most relevant line below; on a terminal truncated to its width, with highlights.

    Results of one file stand together, where the best of them belongs.
    """
    if not found:
        print("nothing found: no unit contains a word of the query")
        return
    distinctive = distinctive_words(found[0]["query"], search.index.words)
    first_of = {one["path"] or one["id"]: one["rank"] for one in reversed(found)}  # the best rank in each file
    found = sorted(found, key=lambda one: (first_of[one["path"] or one["id"]], one["rank"]))
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size().columns if terminal else None

    def line(start: str, text: str) -> None:
        text = printable(text)[: columns and max(0, columns - len(start))]
        print(start + (marked(text, distinctive) if terminal and "NO_COLOR" not in os.environ else text))

    places = [printable(f"{one['path']}:{one['line']}" if one["line"] else one["path"] or one["id"]) for one in found]
    width = max(map(len, places))
    for one, place in zip(found, places, strict=True):
        number = f"{one['rank']:2}  " if numbered else ""
        first, best = head(one), matching_line(one["code"], distinctive)
        line(f"{number}{place:{width}}  {one['score']:.3f}  ", first)
        if best not in ("", first.strip()):
            line(" " * (len(number) + 4), best)


def open_in_editor(result: dict) -> None:
    """Open a result at its line in $VISUAL or $EDITOR, and wait for the editor."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise UserError("no editor is configured: set EDITOR, for example EDITOR=vim")
    if result["file"] is None:
        raise UserError("this index has no file locations: it was not built by search.py index")
    if not Path(result["file"]).is_file():
        raise UserError(f"{result['file']}: no longer exists; update the index: python search.py index …")
    file, line = result["file"], result["line"]
    try:
        command = shlex.split(editor)
        goto = Path(command[0]).stem in WITH_GOTO
        subprocess.run([*command, *(["--goto", f"{file}:{line}"] if goto else [f"+{line}", file])])
    except (OSError, ValueError) as error:  # ValueError: an unclosed quote
        raise UserError(f"the editor {editor!r} does not start ({error}); set EDITOR") from None


def main() -> None:
    """The three commands."""
    commands = {"index": IndexOptions, "query": QueryOptions, "serve": ServeOptions}
    options = parse_subcommand(commands, description=__doc__)
    if isinstance(options, IndexOptions):
        index_command(options)
    elif isinstance(options, ServeOptions):
        serve_command(options)
    else:
        query_command(options)


if __name__ == "__main__":
    sys.exit(run_command(main, needs_less_with="--device cpu or a smaller --model"))
