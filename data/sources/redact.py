"""Secrets and personal data in source code, replaced by typed placeholders: <EMAIL>, <IP_ADDRESS>, <KEY>, <PASSWORD>.

The placeholders are those of StarCoder (arXiv:2305.06161), <NAME> left out: who wrote a file stays in it, as licences
ask. Forms of keys are those that their issuers publish, as collected in gitleaks' rules. Only comments and string
literals are looked into, so `x @ self.weight` is no address and the code parses as before; the number of lines never
changes.
"""

from __future__ import annotations

import ipaddress
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

from data.sources.languages import literals

LOCAL = re.compile(r"(?:(?<![\w.+%\\-])|(?<=\\[nrt]))[A-Za-z0-9][\w.+%-]{0,63}$")
DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[a-z]{2,24}(?![\w(\[@-])(?!\.[a-z])")
RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org|edu)|example|test|invalid|localhost|local)$")  # RFC 2606
FILE_SUFFIXES = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "py", "css", "html", "json", "md", "txt", "git"}
)
IPV4 = re.compile(r"(?<![\w.:/-])(?<![=<>~!]=)(?:\d{1,3}\.){3}\d{1,3}(?![\w+-])(?!\.\w)")
SECTION = re.compile(r"(?:\b(?:section|version|chapter|rfc \d+)s?|§)\s*$", re.IGNORECASE)
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")  # 2000::/3, all that is global
RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})  # public, and nobody's address
SMALL = 20  # a quad whose first three numbers are all below it is taken for a version or a section

KEYS = {  # a fixed part that every key of the form has -> the form
    "AKIA": r"\bAKIA[A-Z2-7]{16}\b",
    "ASIA": r"\bASIA[A-Z2-7]{16}\b",
    "gh": r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
    "github_pat_": r"\bgithub_pat_\w{82}\b",
    "glpat-": r"\bglpat-[\w-]{20,}",
    "xox": r"\bxox[abeoprs]-[\w-]{10,}",
    "hooks.slack.com": r"(?<=hooks\.slack\.com/services/)[\w/]{40,}",
    "AIza": r"\bAIza[\w-]{35}(?![\w-])",
    "k_live_": r"\b[rs]k_live_[0-9a-zA-Z]{10,99}\b",
    "T3BlbkFJ": r"\bsk-[\w-]{20,}T3BlbkFJ[\w-]{20,}",
    "sk-ant-": r"\bsk-ant-[\w-]{80,}",
    "hf_": r"\bhf_[A-Za-z]{34}\b",
    "npm_": r"\bnpm_[A-Za-z0-9]{36}\b",
    "pypi-AgEIcHlwaS5vcmc": r"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,}",
    "SG.": r"\bSG\.[\w-]{22}\.[\w-]{43}(?![\w-])",
    "eyJ": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
}
KEY_FORMS = {hint: re.compile(form) for hint, form in KEYS.items()}
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(.*?)(?:-----END|\Z)", re.DOTALL)
KEY_BODY = re.compile(r"(?<!\\)[A-Za-z0-9+/=]{16,}")
URL_PASSWORD = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"<>\[\]]{1,64}:([^\s/:@'\"<>]{3,128})@")
ASSIGNED = re.compile(
    r"(?i)((?:api|access|auth|secret|private|client)[_-]?(?:key|token|secret)|passw(?:or)?d|passphrase|secret|token)"
    r"\w*[\"']?\]?\s*(?::\s*\w+\s*=|[:=])\s*[\"']([\w.=/+!#$%&*@-]{8,150})[\"']"
)
DUMMY = re.compile(r"(?i)pass|secret|token|key|user|example|dummy|fake|test|change|your|xxx|\*\*\*|^[$%{<\[(]")
LEAST_ENTROPY = {"KEY": 3.5, "PASSWORD": 2.75}  # bits a character; the first is gitleaks' for keys of no known form


def redact(text: str, grammar: str = "python") -> tuple[str, dict[str, int]]:
    """The text with placeholders in place of what was found, and how many there are of each type."""
    found = sorted({*_emails(text), *_addresses(text), *_keys(text), *_passwords(text)})
    if not found:
        return text, {}
    spans = literals(text, grammar)
    starts = [start for start, _ in spans]
    parts, done, counts = [], 0, Counter()
    for start, end, kind in found:
        place = bisect_right(starts, start) - 1
        if start < done or place < 0 or end > spans[place][1]:
            continue
        parts += [text[done:start], f"<{kind}>"]
        done = end
        counts[kind] += 1
    return "".join([*parts, text[done:]]), dict(sorted(counts.items()))


def _emails(text: str) -> Iterator[tuple[int, int, str]]:
    for at in re.finditer("@", text):
        local = LOCAL.search(text, max(0, at.start() - 65), at.start())
        domain = DOMAIN.match(text, at.end())
        if not local or not domain or local.group() == "git":  # git@host is an account of the service
            continue
        name = domain.group().lower()
        one_letter = len(local.group()) == 1 and name.index(".") == 1  # x@w.shape: a product of matrices
        if not one_letter and not RESERVED.search(name) and name.rsplit(".", 1)[1] not in FILE_SUFFIXES:
            yield local.start(), domain.end(), "EMAIL"


def _addresses(text: str) -> Iterator[tuple[int, int, str]]:
    """Global addresses alone: a private, local or documentation address says nothing of anybody."""
    for match in [*IPV4.finditer(text), *IPV6.finditer(text)]:
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        version = address.version == 4 and max(address.packed[:3]) < SMALL
        version = version or SECTION.search(text, max(0, match.start() - 16), match.start())
        if address.is_global and not address.is_multicast and not version and match.group() not in RESOLVERS:
            yield match.start(), match.end(), "IP_ADDRESS"


def _keys(text: str) -> Iterator[tuple[int, int, str]]:
    for hint, form in KEY_FORMS.items():
        if hint in text:
            yield from ((match.start(), match.end(), "KEY") for match in form.finditer(text))
    if "PRIVATE KEY" in text:
        for block in PRIVATE_KEY.finditer(text):  # line by line: a block may be several literals
            yield from ((line.start(), line.end(), "KEY") for line in KEY_BODY.finditer(text, *block.span(1)))


def _passwords(text: str) -> Iterator[tuple[int, int, str]]:
    """Passwords in URLs, and literals that are assigned to a telling name and look drawn by chance."""
    if "://" in text:
        for match in URL_PASSWORD.finditer(text):
            if not DUMMY.search(match.group(1)):
                yield *match.span(1), "PASSWORD"
    for match in ASSIGNED.finditer(text):
        name, value = match.groups()
        kind = "PASSWORD" if name.lower().startswith("pass") else "KEY"
        mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
        if mixed and not DUMMY.search(value) and _entropy(value) >= LEAST_ENTROPY[kind]:
            yield *match.span(2), kind


def _entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits a character."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)
