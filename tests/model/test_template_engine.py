from __future__ import annotations

import pytest

from common.console import UserError
from tests.model.templates import CHAT, with_template


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "must not"),
        ("{{ messages.append(1) }}", "must not"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "must not"),
        ("{% for i in range(10**12) %}{% endfor %}", "loops over more than"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "loops over more than"),
        ("{% include '/etc/passwd' %}", "refuses"),
        ("{% import 'os' as os %}", "refuses"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ raise_exception('no system, please') }}", "refuses these messages: no system, please"),
        ("{% for %}", "not valid"),
        ("{{ open('/etc/passwd') }}", "'open' is undefined"),
    ],
)
def test_a_template_that_misbehaves_is_one_clear_line(tokenizer_folder, tmp_path, template, reason):
    with pytest.raises(UserError, match=reason):
        with_template(tokenizer_folder, tmp_path, template).render(CHAT)


def test_everything_a_template_may_use_renders_as_in_the_reference_library(tokenizer_folder, tmp_path):
    from transformers import AutoTokenizer

    template = """
    {%- set ns = namespace(n=0) -%}
    {%- for m in messages %}
        {%- if m.role == 'system' %}{% continue %}{% endif %}
        {%- set ns.n = ns.n + 1 %}
        {%- generation %}{% set inner = 1 %}{{ m.content }}{% endgeneration %}
    {%- endfor %}
    {{ {'b': '<é>', 'a': [1, none]} | tojson }} {{ [1] | tojson(indent=2) }} {{ strftime_now('%Y') }} {{ ns.n }}
    {{ inner is defined }} {{ tools is none }} {{ documents is none }} {{ eos_token }} {{ bos_token is defined }}
    {{ add_bos_token is defined }} {{ range(3) | list }} {{ dict(x=1) }} {{ messages[0].absent is defined }}
    """
    ours = with_template(tokenizer_folder, tmp_path, template, add_bos_token=False)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{**CHAT[0], "absent": None}, *CHAT[1:]]
    expected = theirs.apply_chat_template(messages, tokenize=False)
    assert ours.render(messages) == expected and "<é>" in expected
