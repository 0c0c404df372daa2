"""Which licence a text is: whole texts are matched; what is left unmatched may add conditions.

A phrase proves nothing: source-available licences, addenda and proprietary notices quote the permissive ones. Texts are
matched as SPDX's guidelines ask (https://spdx.github.io/spdx-spec/v3.0.1/, annex B) by `licenseclassifier`, an extra:
the patterns and the algorithm of Google's licensecheck in plain Python, which also says from where to where a licence
goes.
"""

from __future__ import annotations

import re
from pathlib import Path

OTHER_TERMS = "LicenseRef-other-terms"  # conditions besides the licences in a text
MOST_BYTES = 1 << 18  # read from a file; scanning this much takes about a second
NOTICE = re.compile(r"[\W_]*?(?:copyright\b|\(c\)|©)", re.IGNORECASE)

# How a prohibition, a condition or a payment is worded. Broad on purpose: a wrongly rejected licence is reported and
# can be allowed by name. The last three lines are for addenda in other languages.
NARROWING = re.compile(
    r"\b(?:not|no|non|none|nobody|cannot|never|without|only|solely|exclusively|must|shall|provided that|needs?|agree\w*"
    r"|requir\w+|consent|approval|except\w*|exclud\w*|unless|other than|(?:more|less|fewer) than|limited to"
    r"|prohibit\w*|forbid\w*|restrict\w*|breach\w*|violat\w+|revo[ck]\w+|terminat\w+|proprietary|confidential\w*"
    r"|trade secrets?|fees?|royalt\w+|paid|pay|payment|purchas\w+|subscri\w+|pric(?:e|ing)|(?:non)?commercial\w*"
    r"|enterprise|evaluat\w+|addend\w+|additional (?:terms|conditions)|commons clause"
    r"|nicht\w*|kein\w*|nur|verboten|untersagt|interdit\w*|uniquement|sauf|prohibid\w*|solamente)\b"
    r"|\b(?:запрещ|только|некоммерч)"
    r"|禁止|不得|不可|仅|僅|只能|商用|商业|商業|のみ",
    re.IGNORECASE,
)
# Uses that may be singled out. The patterns leave gaps for names, in which such words could hide.
USES = re.compile(
    r"\b(?:non[- ]?commercial\w*|good,? not evil|surveillance|to train"
    r"|(?:academic|commercial|educational|evaluation|internal|military|personal|research|ai|artificial intelligence"
    r"|machine[- ]learning|(?:language[- ])?models?)(?: or \w+)?"
    r" (?:use|usage|users?|purposes?|training|applications?))\b",
    re.IGNORECASE,
)
GAPPED = re.compile(r"0?BSD.*|MIT.*|ISC|Zlib|X11|NCSA|HPND.*|PSF-2\.0|Apache-2\.0")  # permissive, and with gaps
HARMLESS = re.compile(
    r"(?:\d|zero|two|three|four)[- ]clause|no attribution|do not edit|without limitation"
    r"|(?:unless|except)(?: as| where| when)?(?: explicitly)? (?:otherwise )?(?:explicitly )?(?:stated|noted|specified)"
    r"(?: otherwise| below)?|(?:this is )?not an official(?:ly supported)? \w+ product"
    r"|(?:in no event (?:shall|will)|(?:this|the) software is provided) [^.]*\."
    # what whole families of projects add to their licence: CPython, protobuf, Caffe and PyTorch, dill, fmt, LLVM
    r"|a\. history of the software .*? b\. terms and conditions for accessing"
    r"|this code is not standalone and requires a support library"
    r"|indicate their copyright solely in"
    r"|agree(?:ing)? to the following (?:terms and )?conditions"
    r"|optional exception to the license .*? without including the above copyright and permission notices\."
    r"|with llvm exceptions|specific license and restrictions?\b"
    r"|llvm exceptions to the apache 2\.0 license .*? only with respect to the combined software\.",
    re.IGNORECASE,
)
CHOICE = re.compile(
    r"\b(?:(?:at|of) your (?:option|choice|choosing)|your choice of|under either"
    r"|either (?:of the )?(?:following |two )?licen[sc]es?"
    r"|under (?:the )?(?:terms of )?(?:the )?[\w.-]+ licen[sc]e or)\b",
    re.IGNORECASE,
)


def identify_file(path: Path) -> str | None:
    """`identify` for a file in whatever encoding; None for one that is binary or unreadable.

    Anything beyond MOST_BYTES counts as other terms, as it is not read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, "replace")
    return None if "\0" in text else identify(text, whole=len(data) <= MOST_BYTES)


def identify(text: str, *, whole: bool = True) -> str | None:
    """The SPDX expression of the licences that a text holds; None for a blank one.

    Two licences are joined by OR where the text leaves the choice between them; else all are joined by AND. Words that
    may narrow what they permit add `AND LicenseRef-other-terms`, so that no list of permissive licences meets it. So
    does a text that is not whole. Without a licence, a text of one line is taken for a name, and any other is called
    LicenseRef- and its first line. Raises UserError where the extra package licenseclassifier is missing.
    """
    lines = [line.strip() for line in text.split("\n") if re.search(r"\w", line)]
    if not lines:
        return None
    spans = _spans(text)
    if not spans:
        return lines[0] if len(lines) == 1 and len(lines[0]) <= 80 else _reference(lines[0])
    names = list(dict.fromkeys(name for name, _, _ in spans))
    rest = _besides(text, spans)
    gaps = (text[start:end] for name, start, end in spans if GAPPED.fullmatch(name))
    narrowed = not whole or NARROWING.search(rest) or USES.search(rest) or any(map(USES.search, gaps))
    joined = (" OR " if len(names) == 2 and CHOICE.search(rest) else " AND ").join(names)
    if not narrowed:
        return joined
    return f"({joined}) AND {OTHER_TERMS}" if " OR " in joined else f"{joined} AND {OTHER_TERMS}"


def _spans(text: str) -> list[tuple[str, int, int]]:
    """(name, start, end) of every licence in a text, in order. The URL of a licence does not count."""
    from common.console import need  # here: the processes that examine files start faster without it

    scan = need("licenseclassifier", why="reading a licence file").identify_license
    found = []
    for match in scan(text, 0):
        if not text[match.start : match.end].lstrip().lower().startswith("http"):
            start = match.start + _after_notices(scan, match.id, text[match.start : match.end])
            found.append((match.id, start, match.end))
    return found


def _after_notices(scan, name: str, text: str) -> int:
    """Where the licence of a match begins: licensecheck counts what follows a copyright notice as the licence's own."""
    start = 0
    while notice := NOTICE.match(text, start):
        first = next(iter(scan(text[notice.end() :], 0)), None)
        if first is None or (first.id, notice.end() + first.end) != (name, len(text)):
            break  # the notice is part of the licence
        start = notice.end() + first.start
    return start


def _besides(text: str, spans: list[tuple[str, int, int]]) -> str:
    """The text around its licences, on one line, without what has no bearing on permissions."""
    edges = [0, *(place for _, start, end in spans for place in (start, end)), len(text)]
    pieces = [text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    words = re.sub(r"[\s*#>\"'“”‘’_`|]+", " ", " ".join(pieces))
    return HARMLESS.sub(" ", words)


def _reference(title: str) -> str:
    words = re.findall(r"[A-Za-z0-9.]+", title[:80])
    return f"LicenseRef-{'-'.join(words) or 'unknown'}"
