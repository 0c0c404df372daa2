"""Secrets of no known form: random-looking values given to telling names.

A name tells by its words: `db_password`, `X-Api-Key`, `clientSecret`, but not `pad_token`, `token_url` or
`primary_key`. The value may be assigned, a default of a parameter or an environment look-up, a dictionary entry, or a
header. The names, and their look-alikes, follow gitleaks' rule generic-api-key and detect-secrets' KeywordDetector; the
test for randomness is our own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

TELLING = re.compile(r"(?i)key|token|secret|pass|pwd|credential|auth")
NAME_BEFORE, NAME_AFTER = re.compile(r"[\w-]{0,40}$"), re.compile(r"[\w-]{0,40}")
PASSWORDS = ("password", "passwd", "passphrase", "pwd", "passcode", "passwords")
SECRETS = (
    "secret", "secrets", "credential", "credentials", "apikey", "secretkey", "accesskey", "authkey", "accesstoken",
)  # fmt: skip
# words that make a key or token a secret: `api_key`; and that make a token none: `pad_token`
KEY_TO = frozenset({
    "api", "access", "auth", "secret", "private", "client", "account", "service", "encryption", "encrypt",
    "signing", "sign", "signature", "master", "admin", "app", "application", "consumer", "deploy", "db", "database",
    "storage", "session", "shared", "subscription", "webhook", "jwt", "hmac", "aes", "ssh",
})  # fmt: skip
TOKEN_OF = frozenset({
    "cls", "sep", "pad", "padding", "bos", "eos", "eot", "eol", "eom", "unk", "unknown", "mask", "start", "end",
    "begin", "beginning", "special", "image", "img", "video", "audio", "text", "prompt", "next", "prev", "previous",
    "last", "first", "new", "word", "sub", "stop", "think", "thinking", "tool", "system", "assistant", "im", "fim",
    "prefix", "suffix", "middle", "pre", "post", "boi", "eoi", "boa", "decoder", "encoder", "language", "lang",
    "speaker", "blank", "space", "newline", "line", "default", "placeholder", "public", "csrf", "page",
    "continuation", "max", "min", "num", "n", "added", "extra",
})  # fmt: skip
# last words of names that are about a secret but do not hold one
ABOUT = frozenset({
    "env", "envvar", "var", "variable", "name", "names", "uri", "url", "urls", "path", "paths", "file", "files",
    "filename", "dir", "folder", "type", "types", "kind", "id", "ids", "header", "headers", "field", "fields",
    "prefix", "suffix", "param", "params", "parameter", "format", "length", "len", "size", "count", "limit", "ttl",
    "scheme", "class", "regex", "pattern", "endpoint", "label", "labels", "message", "msg", "error", "errors",
    "hint", "help", "prompt", "placeholder", "description", "doc", "docs", "version", "alias", "column", "index",
    "location", "source", "policy", "attr", "attribute", "arg", "argument", "keyword", "ref", "arn", "template",
    "algorithm", "alg", "method", "strategy", "provider", "manager", "store", "expiry", "expires", "expired",
    "required", "valid", "invalid",
})  # fmt: skip
Q = r"\\?[\"'`]"  # a quotation mark, possibly inside a string
S = r"\s{0,60}"  # bounded, and never twice in a row: no quadratic time on long gaps
OR = r"(?:or|\|\||\?\?)"
# get("NAME", or get("NAME") or
LOOKUP = rf"[\w.]{{1,60}}\({S}{Q}[^\"'`\n]{{1,80}}{Q}{S}(?:,{S}(?:\w{{1,20}}{S}=)?|\){S}{OR}){S}"
VALUE = re.compile(
    rf"(?:(?:{Q})?\]?{S}(?::{S}[\w.\[\], |]{{1,40}}?)?(?:===?|[!:]?=|=>|:)"  # assigned, annotated, compared; an entry
    rf"|{Q}{S},(?:{S}default{S}=)?"  # ("NAME", default=
    rf"|(?:{Q})?[\])]?{S}{OR}){S}"  # env["NAME"] or
    rf"(?:{LOOKUP})?(?:[\w.]{{0,40}}(?:[Ss]ecret\w{{0,20}}|[Ss]tr|[Ss]tring|bytes)\({S})?(?:[(\[]{S}){{0,3}}"
    rf"(?:{Q}[\w.@-]{{1,60}}{Q}{S},{S}(?={Q}[^\"'`]{{1,150}}{Q}{S}\)))?"  # ("user", of a pair
    rf"(?:[bBrRfFuU]{{1,2}}(?=[\"'`]))?{Q}{{1,3}}([\w.=/+!#$%&*@~^?-]{{8,150}}){Q}"
)
BARE = re.compile(  # within a string or a comment: NAME=..., Name: ...
    rf"[\"'`]?{S}[=:]{S}(?:(?:Bearer|Basic|Token){S})?([\w.=/+~%-]{{8,150}})(?=[\s\"'`&;,)\\]|$)"
)
BEARER = re.compile(r"\b(?:[Bb]earer|[Bb]asic)\s{1,9}([\w.~+/-]{16,150}={0,2})(?=[\s\"'`,;)\\]|$)")
DUMMY = re.compile(r"(?i)pass|secret|token|key|user|example|dummy|fake|test|change|your|xxx|\*\*\*|^[$%{<\[(]")
# bits per character: gitleaks' for generic keys, detect-secrets' for hexadecimal ones (maximum 4)
LEAST_ENTROPY = {"KEY": 3.5, "PASSWORD": 2.75}
LEAST_ENTROPY_HEX = 3.0
HEX = re.compile(r"[0-9a-f]{20,}|[0-9A-F]{20,}")
LEAST_BARE = {"KEY": 16, "PASSWORD": 8}  # characters of an unquoted value
# changes of character class per character (lower case, capital, digit …): random gives 0.4, words fewer
LEAST_CHANGES = 0.25


class Secret(NamedTuple):
    """A piece of a text that may have to be replaced."""

    start: int
    end: int
    kind: str  # the placeholder's name
    anchor: int  # from here to `end` must be a single comment or literal


def named_secrets(text: str) -> Iterator[Secret]:
    """The values of telling names, each a KEY or a PASSWORD."""
    done = 0
    for word in TELLING.finditer(text):
        if word.start() < done:
            continue
        start = NAME_BEFORE.search(text, max(done, word.start() - 40), word.start()).start()
        done = NAME_AFTER.match(text, word.end()).end()
        kind = kind_of(text[start:done])
        if not kind:
            continue
        given = VALUE.match(text, done)
        anchor = given.start(1) if given else start
        if not given and (given := BARE.match(text, done)) and len(given.group(1)) < LEAST_BARE[kind]:
            given = None
        if given and is_random(given.group(1), kind):
            yield Secret(given.start(1), given.end(1), kind, anchor)
    for given in BEARER.finditer(text):
        if is_random(given.group(1), "KEY"):
            yield Secret(given.start(1), given.end(1), "KEY", anchor=given.start())


def kind_of(name: str) -> str | None:
    """KEY or PASSWORD if the name says that it holds a secret, else None."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").strip("_").split("_")
    if words[-1] in ABOUT:
        return None
    if words == ["auth"]:  # auth=("ada", "...")
        return "PASSWORD"
    for before, word in zip(["", *words], words, strict=False):
        if word.endswith(PASSWORDS) or (word in ("pass", "pw") and before):
            return "PASSWORD"
        if word.endswith(SECRETS) or (word == "key" and before in KEY_TO):
            return "KEY"
        if word.endswith("token") and before not in TOKEN_OF and word.removesuffix("token") not in TOKEN_OF:
            return "KEY"
    return None


def is_random(value: str, kind: str) -> bool:
    """Whether a text looks random: letters and digits mixed, and no word that stands for a secret."""
    mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    least = LEAST_ENTROPY_HEX if HEX.fullmatch(value) else LEAST_ENTROPY[kind]
    if not mixed or DUMMY.search(value) or entropy(value) < least:
        return False
    kinds = "".join(map(_class_of, value))
    changes = len(re.findall(r"(?=a[A0#]|A0|0[aA]|#[aA0]|[A0]#)", kinds))
    return changes > LEAST_CHANGES * len(value)


def _class_of(character: str) -> str:
    """a, A and 0 for a lower-case letter, a capital and a digit; a blank for a separator, # for anything else."""
    if character.isalpha():
        return "A" if character.isupper() else "a"
    return "0" if character.isdigit() else " " if character in "_-./" else "#"


def entropy(text: str) -> float:
    """Shannon entropy of a text in bits per character."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)
