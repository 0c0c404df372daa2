from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from model.export.convert import export
from model.export.ollama import CONVERSATIONS, deviations, find_markup, go_template, modelfile
from model.tokenizer import Tokenizer


def render_go(template: str, messages: list[dict]) -> str:
    """Go's text/template: actions, `{{-` that trims before it, range .Messages, if / else if / else, one variable."""
    pieces = re.split(r"(\{\{-? .*? \}\})", template)
    tokens = []
    for piece in pieces:
        if piece.startswith("{{-") and tokens and not tokens[-1].startswith("{{"):
            tokens[-1] = tokens[-1].rstrip(" \t\r\n")
        tokens.append(piece)
    out, variables = [], {"before": ""}

    def value(word: str, message: dict) -> str:
        if word.startswith('"'):
            return json.loads(word)
        return variables[word[1:]] if word.startswith("$") else message[word[1:].lower()]

    def run(at: int, message: dict, live: bool) -> int:
        """Runs tokens from `at` on to the matching end or else; returns where that stands."""
        while at < len(tokens):
            token = tokens[at]
            if not token.startswith("{{"):
                if live:
                    out.append(token)
                at += 1
                continue
            words = token.strip("{}").strip("-").split()
            if words[0] in ("end", "else"):
                return at
            if words[0] == "range":
                end = run(at + 1, message, False)
                for each in messages if live else []:
                    run(at + 1, each, True)
                at = end + 1
            elif words[0] == "if":
                at = branch(at, words, message, live) + 1
            else:
                if live and len(words) == 1:
                    out.append(value(words[0], message))
                elif live:
                    variables[words[0][1:]] = value(words[2], message)
                at += 1
        return at

    def branch(at: int, words: list[str], message: dict, live: bool) -> int:
        taken = False
        while words[0] != "end":
            condition = words[words.index("eq") :] if "eq" in words else None
            reached = live and not taken
            holds = reached and (condition is None or value(condition[1], message) == value(condition[2], message))
            at = run(at + 1, message, holds)
            taken = taken or holds
            words = tokens[at].strip("{}").strip("-").split()
        return at

    run(0, {}, True)
    return "".join(out)


def conversation(roles: str) -> list[dict]:
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[role], "content": f"words {i} of {role}\n  {{{{ .X }}}}"} for i, role in enumerate(roles)]


TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "with a default system message": "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "system inside the user's turn": "{% for m in messages %}{% if m.role == 'system' %}<u>{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}{% if loop.index0 == 0 or messages[loop.index0 - 1].role != 'system' %}<u>{% endif %}"
    "{{ m.content }}{% else %}\n<m>{{ m.content }}</m>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}\n<m>{% endif %}",
    "no system": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_ollamas_template_renders_what_jinja_does(name, tokenizer):
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": TEMPLATES[name]})
    markup = find_markup(source)
    assert markup.has_system == (name != "no system")
    template = go_template(markup)
    for roles in [c for c in (*CONVERSATIONS, "uauauau", "suauauau") if markup.has_system or "s" not in c]:
        messages = conversation(roles)
        assert render_go(template, messages) == source.render(messages, add_generation_prompt=True)


def test_a_system_message_that_the_template_refuses_is_left_out_by_ollama(tokenizer):
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": TEMPLATES["no system"]})
    rendered = render_go(go_template(find_markup(source)), conversation("su"))
    assert rendered == source.render(conversation("su")[1:], add_generation_prompt=True)
    assert "accepts no system message" in modelfile("x.gguf", source, context=64).text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}", "today's date"),
        ("{% for m in messages %}[{{ loop.index }}]{{ m.content }}{% endfor %}", "more than markup"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "more than markup|rewrites"),
        ("{% for m in messages %}{{ '{{' }}{{ m.content }}{% endfor %}", "{{ or three quotation marks"),
        (None, "no chat template"),
    ],
)
def test_a_template_that_go_cannot_express_is_reported(template, why, tokenizer):
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
    text, has_template, (note,) = modelfile("x.gguf", source, context=64)
    assert re.search(why, note) and not has_template and 'TEMPLATE "' not in text
    assert f"# {note.removeprefix('the Modelfile has ')}" in text


def test_the_modelfile_stops_where_training_did(tokenizer):
    text = modelfile("x.gguf", tokenizer, context=64).text
    assert text.startswith("FROM ./x.gguf\n") and "PARAMETER num_ctx 64\n" in text
    assert set(re.findall(r'PARAMETER stop "(.*)"', text)) == {"<|endoftext|>", "<|im_end|>"}


def test_white_space_that_only_jinja_strips_is_reported(tokenizer):
    stripping = TEMPLATES["chatml"].replace("m.content", "m.content.strip()")
    answers = TEMPLATES["chatml"].replace("m.content", "m.content.strip() if m.role == 'assistant' else m.content")
    for template, said in ((stripping, True), (answers, True), (TEMPLATES["chatml"], False)):
        source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
        text, has_template, _ = modelfile("x.gguf", source, context=64)
        assert has_template and ("strips the white space" in text) == said


THINKING = "{% if '</think>' in m.content %}{{ CHANGED }}{% else %}{{ m.content }}{% endif %}"


EARLIER = {  # what is done to an earlier answer with thoughts
    "dropped": "m.content.split('</think>')[-1]",
    "dropped with the lines after": "m.content.split('</think>')[-1].lstrip('\\n')",
    "dropped before the last answer": "m.content if loop.revindex < 3 else m.content.split('</think>')[-1]",
    "rewritten": "m.content.replace('<think>\\n', '<think>')",
    "in brackets": "m.content.split('[/THINK]')[-1]",
}


@pytest.mark.parametrize("name", EARLIER)
def test_thoughts_that_only_jinja_removes_from_earlier_answers_are_reported(name, tokenizer, tiny_folder, tmp_path):
    change = THINKING.replace("CHANGED", EARLIER[name])
    if name == "in brackets":
        change = change.replace("</think>", "[/THINK]")
    template = TEMPLATES["chatml"].replace("{{ m.content }}", change)
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
    text, has_template, _ = modelfile("x.gguf", source, context=64)
    before, _, _ = text.partition("TEMPLATE")
    tags = "[THINK] … [/THINK]" if name == "in brackets" else "<think> … </think>"
    assert has_template and before.count(f"removes {tags} from earlier answers") == 1 and "white space" not in before
    if name == "dropped":  # a person sees it too, and it stays in the report
        folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
        report = export(str(folder), "gguf", tmp_path / "out" / "x.gguf", type="f16")
        assert [note for note in report["notes"] if tags in note]


def test_tags_that_a_template_leaves_alone_are_not_reported(tokenizer):
    template = TEMPLATES["chatml"] + "{% if tools %}<tool_call>{{ tools }}</tool_call> </think> [/INST]{% endif %}"
    source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": template})
    assert deviations(find_markup(source), source) == []


def jinja_files() -> list[Path]:
    return sorted(Path(os.environ.get("TRITUNE_LLAMA_CPP", "."), "models", "templates").glob("*.jinja"))


@pytest.mark.skipif(not jinja_files(), reason="TRITUNE_LLAMA_CPP names no source folder of llama.cpp")
def test_published_templates_are_expressed_exactly_or_not_at_all(tokenizer):
    told = 0
    for path in jinja_files():
        source = Tokenizer(tokenizer.backend, tokenizer.settings | {"chat_template": path.read_text(encoding="utf-8")})
        markup = find_markup(source)
        if isinstance(markup, str):
            continue
        told += 1
        for roles in [c for c in CONVERSATIONS if markup.has_system or "s" not in c]:
            messages = [m | {"content": m["content"].strip()} for m in conversation(roles)]
            assert render_go(go_template(markup), messages) == source.render(messages, add_generation_prompt=True), path
    assert told > 50
