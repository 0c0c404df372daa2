"""Which files are worth training on. Every rule names its reason; nothing is dropped without one.

The thresholds are the field's: Codex (arXiv:2107.03374), SantaCoder (arXiv:2301.03988), StarCoder (arXiv:2305.06161)
and StarCoder 2 (arXiv:2402.19173). The lists of names follow github-linguist's generated.rb and vendor.yml.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from data.corpus.generated import generated_mark
from data.corpus.languages import anatomy, head_of

VENDORED = frozenset(
    {"_vendor", "_vendored", "vendor", "vendored", "third_party", "third-party", "thirdparty", "3rdparty", "extern"}
    | {"externals", "node_modules", "bower_components", "site-packages", "venv", "build", "dist", "__pycache__"}
)
TEST_FOLDERS = frozenset({"test", "tests", "testing", "__tests__", "__mocks__", "spec", "specs", "e2e"})
TEST_NAMES = re.compile(
    r"conftest\.py|test_.*\.py|.*_tests?\.py|tests?\.py|.*\.(test|spec|bench)\.[cm]?[jt]sx?"
    r"|.*_(unit)?tests?\.(go|c|cc|cpp|cxx|rb|exs)|.*_spec\.(rb|lua)|.*(Tests?|Spec)\.(java|cs|php|kt|scala|swift|hs)"
)
GENERATED_NAMES = re.compile(
    r".*_pb2(_grpc)?\.py|.*_pb\.[jt]s|parsetab\.py|lextab\.py|.*\.pb\.(go|cc|h)|.*\.g\.cs|zz_generated.*\.go"
)
TRANSPILED = re.compile(r"^//[#@] sourceMappingURL=|^Object\.defineProperty\(exports, .__esModule.", re.MULTILINE)
ENCODED = re.compile(  # StarCoder 2: base64, bytes in hexadecimal, \u escapes
    r"[a-zA-Z0-9+/\n=]{64,}|(?:\b(?:0x|\\x)?[0-9a-fA-F]{2}(?:,|\b\s*)){8,}|(?:\\u[0-9a-fA-F]{4}){8,}"
)
MOST_BYTES = 1 << 20  # The Stack (arXiv:2211.15533) reads no larger file either
LONGEST_LINE = 1000  # characters; Codex, StarCoder
MEAN_LINE = 100  # characters per non-blank line; Codex, StarCoder
LEAST_ALPHANUMERIC = 0.25  # share of the characters; StarCoder
LONGEST_ENCODED = 1024  # characters of encoded data in one piece; StarCoder 2
MOST_ENCODED = 0.5  # share of the characters; StarCoder 2
# Share of the characters; SantaCoder. Unlike there, documentation does not count: in some libraries' best files it
# outweighs the code (networkx's graph.py). Its minimum share (1 %) is omitted: one's own uncommented code matters, too.
MOST_COMMENTS = 0.8
MOST_LINES = 100_000  # StarCoder 2
LEAST_CODE_LINES = 10  # ours: shorter files are mostly imports


def reject_path(path: str) -> tuple[str, str] | None:
    """(reason, detail) when the path alone disqualifies a file, else None."""
    *folders, name = PurePosixPath(path).parts
    for folder in folders:
        if folder.startswith(".") or folder.lower() in VENDORED:
            return "vendored", f"in folder {folder}"
        if folder.lower() in TEST_FOLDERS:
            return "test file", f"in folder {folder}"
    if TEST_NAMES.fullmatch(name):
        return "test file", f"named {name}"
    if GENERATED_NAMES.fullmatch(name):
        return "generated", f"named {name}"
    if re.search(r"[.-](min|bundle)\.[cm]?js$", name):
        return "minified", f"named {name}"
    if re.search(r"\.d\.[cm]?ts$", name):
        return "declarations", "types without code"
    return None


def decode(data: bytes) -> str | None:
    """The text of a source file with \\n line ends and no byte-order mark; None when it is not UTF-8."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        return None


def reject_text(text: str, grammar: str = "python") -> tuple[str, str] | None:
    """(reason, detail) when the text disqualifies a file, else None."""
    why = reject_no_source(text, grammar)
    if why:
        return why
    parts = anatomy(text, grammar)
    if parts.code_lines < LEAST_CODE_LINES:
        return "too short", f"{parts.code_lines} lines of code"
    share = parts.comments / sum(len(line) for line in text.split("\n") if line.strip())
    if share > MOST_COMMENTS:
        return "mostly comments", f"{share:.0%} of the characters"
    return None


def reject_no_source(text: str, grammar: str = "python") -> tuple[str, str] | None:
    """(reason, detail) when the text is not source code that a person wrote, else None."""
    why = _reject_form(text)
    if why:
        return why
    try:
        head = head_of(text, grammar)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # all four come from Python's own parser
        return "does not parse", f"{type(error).__name__}: {error}"
    marker = generated_mark(head)
    if marker is None and grammar != "python" and TRANSPILED.search(text):
        marker = "a transpiler's output"
    return ("generated", marker) if marker else None


def _reject_form(text: str) -> tuple[str, str] | None:
    """(reason, detail) by the lines and characters of a text in any language, else None."""
    if "\0" in text:
        return "binary", "a NUL character"
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        return "too long", f"{len(lines)} lines"
    longest = max(map(len, lines))
    if longest > LONGEST_LINE:
        return "minified", f"a line of {longest} characters"
    filled = [len(line) for line in lines if line.strip()]
    if len(filled) >= LEAST_CODE_LINES and sum(filled) / len(filled) > MEAN_LINE:  # else it is too short
        return "minified", f"{sum(filled) / len(filled):.0f} characters a line"
    share = sum(map(str.isalnum, text)) / len(text) if filled else 1.0
    if share < LEAST_ALPHANUMERIC:
        return "few letters", f"{share:.0%} of the characters are letters or digits"
    encoded = [len(match.group()) for match in ENCODED.finditer(text)]
    if encoded and (max(encoded) > LONGEST_ENCODED or sum(encoded) / len(text) > MOST_ENCODED):
        return "encoded data", f"{sum(encoded)} of {len(text)} characters, {max(encoded)} in one piece"
    return None
