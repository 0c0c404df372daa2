"""Secrets and personal data in source code, replaced by typed placeholders: <EMAIL>, <IP_ADDRESS>, <KEY>, <PASSWORD>.

The placeholders are StarCoder's (arXiv:2305.06161) without <NAME>: authors stay named, as licences require. Keys are
recognised by their form (token_forms.py) or by the name they are assigned to (named_secrets.py). Only comments and
string literals are searched, so `x @ self.weight` is no address and the code parses as before; the number of lines
never changes.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

from data.corpus.languages import literals
from data.corpus.named_secrets import DUMMY, Secret, entropy, named_secrets
from data.corpus.token_forms import KEY_FORMS

LOCAL = re.compile(r"(?:(?<![\w.+%\\-])|(?<=\\[nrt]))[A-Za-z0-9][\w.+%-]{0,63}$")
DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[a-z]{2,24}(?![\w(\[@-])(?!\.[a-z])")
RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org|edu)|example|test|invalid|localhost|local)$")  # RFC 2606
FILE_SUFFIXES = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "py", "css", "html", "json", "md", "txt", "git"}
)
IPV4 = re.compile(r"(?<![\w.:/-])(?<![=<>~!]=)(?:\d{1,3}\.){3}\d{1,3}(?![\w+-])(?!\.\w)")
SECTION = re.compile(r"(?:\b(?:section|version|chapter|rfc \d+)s?|§)\s*$", re.IGNORECASE)
IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])")  # 2000::/3, all global unicast
RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})  # public resolvers identify nobody
SMALL = 20  # a quad whose first three numbers are all below this is a version or a section number

PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(.*?)(?:-----END|\Z)", re.DOTALL)
KEY_BODY = re.compile(r"(?<!\\)[A-Za-z0-9+/=]{16,}")
URL_PASSWORD = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"<>\[\]]{1,64}:([^\s/:@'\"<>]{3,128})@")
CURL_USER = re.compile(
    r"\bcurl(?:\s[^\n]{0,200}?)?\s(?:-u|--user)[\s=]{1,9}[\"']?[^\s:\"'/]{1,64}:([^\s\"'{}$]{6,128})(?=[\s\"'\\]|$)"
)
LEAST_ENTROPY = 2.5  # bits per character of a key of a known form; below it is a placeholder, ghp_xxxxxxxx


def redact(text: str, grammar: str = "python") -> tuple[str, dict[str, int]]:
    """The text with placeholders for what was found, and how many of each type."""
    found = sorted({*_emails(text), *_addresses(text), *_keys(text), *_passwords(text), *named_secrets(text)})
    if not found:
        return text, {}
    spans = literals(text, grammar)
    starts = [start for start, _ in spans]
    parts, done, counts = [], 0, Counter()
    for secret in found:
        i = bisect_right(starts, secret.anchor) - 1  # the last literal that begins at the anchor or before it
        if secret.start < done or i < 0 or secret.end > spans[i][1]:
            continue
        parts += [text[done : secret.start], f"<{secret.kind}>"]
        done = secret.end
        counts[secret.kind] += 1
    return "".join([*parts, text[done:]]), dict(sorted(counts.items()))


def _emails(text: str) -> Iterator[Secret]:
    for at in re.finditer("@", text):
        local = LOCAL.search(text, max(0, at.start() - 65), at.start())
        domain = DOMAIN.match(text, at.end())
        if not local or not domain or local.group() == "git":  # git@host is a service account
            continue
        name = domain.group().lower()
        one_letter = len(local.group()) == 1 and name.index(".") == 1  # x@w.shape: a matrix product
        if not one_letter and not RESERVED.search(name) and name.rsplit(".", 1)[1] not in FILE_SUFFIXES:
            yield Secret(local.start(), domain.end(), "EMAIL", anchor=local.start())


def _addresses(text: str) -> Iterator[Secret]:
    """Global addresses only: private, local and documentation addresses identify nobody."""
    for match in [*IPV4.finditer(text), *IPV6.finditer(text)]:
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        version = address.version == 4 and max(address.packed[:3]) < SMALL
        version = version or SECTION.search(text, max(0, match.start() - 16), match.start())
        if address.is_global and not address.is_multicast and not version and match.group() not in RESOLVERS:
            yield Secret(match.start(), match.end(), "IP_ADDRESS", anchor=match.start())


def _keys(text: str) -> Iterator[Secret]:
    for fixed, form in KEY_FORMS.items():
        for match in form.finditer(text) if fixed in text else ():
            if "EXAMPLE" not in match.group() and entropy(match.group()) >= LEAST_ENTROPY:
                yield Secret(match.start(), match.end(), "KEY", anchor=match.start())
    if "PRIVATE KEY" in text:
        for block in PRIVATE_KEY.finditer(text):  # line by line: a block may span several literals
            for line in KEY_BODY.finditer(text, *block.span(1)):
                yield Secret(line.start(), line.end(), "KEY", anchor=line.start())


def _passwords(text: str) -> Iterator[Secret]:
    """Passwords in URLs and after curl's --user."""
    found = [
        *(URL_PASSWORD.finditer(text) if "://" in text else ()),
        *(CURL_USER.finditer(text) if "curl" in text else ()),
    ]
    for match in found:
        if not DUMMY.search(match.group(1)):
            yield Secret(match.start(1), match.end(1), "PASSWORD", anchor=match.start(1))
