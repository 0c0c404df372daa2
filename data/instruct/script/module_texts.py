"""Files beside the functions in JavaScript or TypeScript: those that a check carries, and the package's tests."""

from __future__ import annotations

import functools
from collections.abc import Callable

from data.checks.script import calls_of_assertions
from data.corpus import Corpus
from data.corpus.filters import decode
from data.corpus.languages import grammar_of
from data.corpus.locate import locate
from data.corpus.redact import redact

SCRIPTS = ("javascript", "typescript")
# why a file may be missing from a corpus and still be used by what is in it; never for its licence or its secrets
USABLE = ("too short", "near-duplicate", "duplicate", "over max_files")


def module_reader(corpus: Corpus) -> Callable[[str, str], str | None]:
    """A function (source, path) -> text of a file, redacted as the corpus is; None for any other file."""
    texts = {(file.source, file.path): file.text for file in corpus.files}
    usable = {(reject["source"], reject["path"]) for reject in corpus.rejects if reject["reason"] in USABLE}

    @functools.cache
    def read(source: str, path: str) -> str | None:
        if (source, path) in texts or (source, path) not in usable:
            return texts.get((source, path))
        file = locate(source).tree / path
        text = decode(file.read_bytes()) if file.is_file() else None
        return redact(text)[0] if text is not None and corpus.options["redact"] else text

    return read


def asserted_calls(corpus: Corpus) -> dict[str, list[dict]]:
    """Function -> the calls that the sources' test files assert, which are not part of the corpus themselves."""
    found: dict[str, list[dict]] = {}
    for reject in corpus.rejects:
        grammar = grammar_of(reject["path"], SCRIPTS)
        if reject["reason"] != "test file" or grammar is None:
            continue
        file = locate(reject["source"]).tree / reject["path"]
        text = decode(file.read_bytes()) if file.is_file() else None
        if text is not None:
            text = redact(text)[0] if corpus.options["redact"] else text
            for name, calls in calls_of_assertions(text, grammar).items():
                found.setdefault(name, []).extend(calls)
    return found
