import ast
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus import build_corpus
from data.corpus.redact import redact

# put together here, so that no scanner takes this file for a leak
DRAWN = "q7Xk2Lm9Zt4Rw8Yb3Nc6Vd1Hf5Js0Pg7Ae4Ui9Oz"
FORMS = [
    ("jane.doe+lists@uni-demo.museum", "EMAIL"),
    ("81.169.145.156", "IP_ADDRESS"),
    ("2a00:1450:4001:82b::200e", "IP_ADDRESS"),
    ("AKIA" + "QRSTUVWX2345YZAB", "KEY"),
    ("ghp_" + DRAWN[:36], "KEY"),
    ("glpat-" + DRAWN[:20], "KEY"),
    ("xoxb-" + DRAWN[:24], "KEY"),
    ("AIza" + DRAWN[:35], "KEY"),
    ("sk_live_" + DRAWN[:24], "KEY"),
    ("sk-" + DRAWN[:20] + "T3BlbkFJ" + DRAWN[:20], "KEY"),
    ("hf_" + string.ascii_letters[:34], "KEY"),
    ("npm_" + DRAWN[:36], "KEY"),
    (f"eyJ{DRAWN[:12]}.eyJ{DRAWN[:12]}.{DRAWN[:20]}", "KEY"),
]
INNOCENT = [
    "you@example.com", "a@host.test", "git@github.com:networkx/networkx.git", "icon@2x.png", "x@w.shape", "@nx.utils",
    "x@weight.to(device)", "127.0.0.1", "192.168.1.20", "8.8.8.8", "1.2.3.4", "pkg==81.169.145.156", "1.3.6.1.5.5.7",
    "section 8.2.4.44", "HTML 5, Section 8.22.30.1", "3 Apr 2002 12.34.56.78+0800", "git://[path[:q7Xk2Lm9]@]x",
    "1.0.0.127.in-addr.arpa",
    "a[::2]", "12:34:56", "postgres://user:password@db/x", "https://{user}:{password}@host", "ghp_short",
    "d41d8cd98f00b204e9800998ecf8427e",
]  # fmt: skip


@pytest.mark.parametrize(("secret", "kind"), FORMS, ids=[secret[:8] for secret, _ in FORMS])
def test_each_form_gets_its_placeholder_in_strings_and_comments(secret, kind):
    text = f"x = 'see {secret} there'  # or {secret}\n"
    assert redact(text) == (f"x = 'see <{kind}> there'  # or <{kind}>\n", {kind: 2})


@pytest.mark.parametrize("innocent", INNOCENT)
def test_what_tells_nothing_of_anybody_stays(innocent):
    text = f"x = '{innocent}'  # {innocent}\n"
    assert redact(text) == (text, {})


def test_only_strings_and_comments_are_looked_into():
    text = "y = inputs@self.weight\nz = inputs@model.weight  # inputs@self.weight\n"
    redacted, counts = redact(text)
    assert redacted == "y = inputs@self.weight\nz = inputs@model.weight  # <EMAIL>\n"
    assert counts == {"EMAIL": 1}
    after = "y = 'a', inputs@self.weight\n"
    assert redact(after) == (after, {})


def test_an_address_begins_after_an_escape():
    assert redact("x = '\\njane@uni.museum'\ny = '\\n@triton.jit'\n") == (
        "x = '\\n<EMAIL>'\ny = '\\n@triton.jit'\n",
        {"EMAIL": 1},
    )


def test_a_password_goes_and_the_rest_of_its_url_stays():
    text = f"url = 'postgres://app:{DRAWN[:12]}@db.internal/x'\n"
    assert redact(text) == ("url = 'postgres://app:<PASSWORD>@db.internal/x'\n", {"PASSWORD": 1})


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"db_password = '{DRAWN[:10]}'", "PASSWORD"),
        (f"config['api_key'] = '{DRAWN[:24]}'", "KEY"),
        (f"AUTH_TOKEN: str = '{DRAWN[:24]}'", "KEY"),
        ("password = 'correct horse battery'", None),
        ("password = 'changeme123'", None),
        ("token = 'identifier'", None),
        (f"name = '{DRAWN[:24]}'", None),
    ],
)
def test_a_value_is_a_secret_by_its_name_and_by_looking_drawn(line, kind):
    redacted, counts = redact(line + "\n")
    assert counts == ({kind: 1} if kind else {})
    assert (DRAWN[:10] in redacted) == (kind is None and DRAWN[:10] in line)


def test_a_private_key_goes_line_by_line_however_it_is_quoted():
    head, tail = "-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----"
    whole = f"a = '''{head}\n{DRAWN}\n{DRAWN[::-1]}\n{tail}'''\n"
    line = f"c = '{head}\\n{DRAWN}\\n{tail}'\n"
    assert redact(line) == (f"c = '{head}\\n<KEY>\\n{tail}'\n", {"KEY": 1})  # the n of an escape is none of the key's
    parts = f"b = ('{head}\\n'\n     '{DRAWN}\\n'\n     '{tail}')\n"
    redacted, counts = redact(whole + parts)
    assert DRAWN not in redacted and DRAWN[::-1] not in redacted
    assert counts == {"KEY": 3} and redacted.count("\n") == (whole + parts).count("\n")
    assert ast.parse(redacted).body[1].value.value == f"{head}\n<KEY>\n{tail}"


@given(st.lists(st.sampled_from([*(secret for secret, _ in FORMS), *INNOCENT, "a = b", "\n", " ", "'", '"', "#", "ü"])))
def test_what_parsed_parses_again_on_as_many_lines(pieces):
    text = "".join(pieces)
    redacted, counts = redact(text)
    assert redacted.count("\n") == text.count("\n")
    assert sum(redacted.count(f"<{kind}>") for kind in ("EMAIL", "IP_ADDRESS", "KEY", "PASSWORD")) == sum(
        counts.values()
    )
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return
    ast.parse(redacted)


def test_networkx_holds_addresses_of_its_authors_and_nothing_else():
    files = build_corpus("package:networkx").files
    assert {kind for file in files for kind in file.redacted} == {"EMAIL"}
    marked = [line for file in files for line in file.text.split("\n") if "<EMAIL>" in line]
    assert len(marked) == 5 and all(line.startswith(("# Authors:", "# Copyright")) for line in marked)
