from __future__ import annotations

import re

import pytest
from jinja2 import UndefinedError

from common.html import SHOWN, Safe, element, join, markdown, page, safe, template


def rendered(tmp_path, source, **variables):
    (tmp_path / "x.html.j2").write_text(source)
    return template(tmp_path / "x.html.j2")(**variables)


def test_a_template_escapes_all_but_safe_markup(tmp_path):
    text = rendered(tmp_path, "<p>{{ a }}{{ b }}</p>", a="<i>&", b=Safe("<b>x</b>"))
    assert text == "<p>&lt;i&gt;&amp;<b>x</b></p>" and isinstance(text, Safe)


def test_characters_that_html_does_not_allow_are_replaced_in_templates_and_elements(tmp_path):
    hostile = "a\x00\x1b\ud800b"
    assert rendered(tmp_path, "{{ a }}", a=hostile) == safe(hostile) == "a\ufffd\ufffd\ufffdb"


def test_a_variable_that_was_not_given_is_an_error(tmp_path):
    with pytest.raises(UndefinedError, match="'b' is undefined"):
        rendered(tmp_path, "{{ a }}{{ b }}", a=1)


def test_whatever_is_put_into_an_element_is_escaped():
    assert element("p", "<i>", class_='"') == '<p class="&#34;">&lt;i&gt;</p>'
    assert join(["<", Safe("<br>"), ""], " ") == "&lt; <br>"
    assert Safe("<b>") + "<" == "<b>&lt;"


def test_code_is_cut_and_says_by_how_much(tmp_path):
    macro = '{% from "macros.html.j2" import code %}{{ code(text) }}'
    assert "characters" not in rendered(tmp_path, macro, text="x" * SHOWN)
    long = rendered(tmp_path, macro, text="<" * (SHOWN + 1234))
    assert "… 1,234 more characters" in long and long.count("&lt;") == SHOWN
    as_json = rendered(tmp_path, macro, text={"a": 1})
    assert re.sub("<[^>]*>", "", as_json).split() == ["{", "&#34;a&#34;:", "1", "}"]


def test_a_table_has_its_text_columns_first_and_escapes_every_cell(tmp_path):
    macro = '{% from "macros.html.j2" import table %}{{ table(head, rows, texts=1, long=true) }}'
    text = rendered(tmp_path, macro, head=("name", "<n>"), rows=[("<a>", 1)])
    assert '<div class="table long"' in text and '<th class="figure" scope="col">&lt;n&gt;</th>' in text
    assert '<td class="text">&lt;a&gt;</td><td class="figure">1</td>' in text
    assert "<thead>" not in rendered(tmp_path, macro, head=(), rows=[])


def test_a_page_allows_its_own_script_only():
    text = page("<t>", "about", [("a", "A & B", Safe("<p>x</p>"))])
    assert "<title>&lt;t&gt;</title>" in text and '<a href="#a">A &amp; B</a>' in text and "<p>x</p>" in text
    assert re.search(r"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-[\w+/]+='", text)


def test_markdown_keeps_to_its_subset():
    assert markdown("---\nlicense: mit\n---\n\n# A") == markdown("# A")
    assert markdown("# A `b` #") == "<h3>A <code>b</code></h3>"
    assert (
        markdown("a **b** [c](javascript:alert) <d>") == "<p>a <strong>b</strong> [c](javascript:alert) &lt;d&gt;</p>"
    )
    assert markdown("- a\n  b\n- c") == "<ul><li>a b</li>\n<li>c</li></ul>"
    assert markdown("```text\n<x>\n\n# y\n```\nz") == "<pre><code>&lt;x&gt;\n\n# y</code></pre>\n<p>z</p>"
    assert markdown("`**a**`") == "<p><code>**a**</code></p>"
    cells = re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", markdown("| a | b |\n|---|---|\n| 1 \\| 2 |\n"))
    assert cells == ["a", "b", "1 | 2", ""]
