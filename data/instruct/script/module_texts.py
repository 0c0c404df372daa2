"""The files that a check of a function in JavaScript or TypeScript carries: of the corpus, or too small for it."""

from __future__ import annotations

import functools
from collections.abc import Callable

from data.corpus import Corpus
from data.corpus.filters import decode
from data.corpus.locate import locate
from data.corpus.redact import redact

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
