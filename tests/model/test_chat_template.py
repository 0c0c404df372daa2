from __future__ import annotations

import inspect
import shutil

import pytest

from common.console import UserError
from model import chat_template, conversation, load_tokenizer, unrendered
from model.chat_template import ChatTemplate
from model.conversation import split_conversation
from tests.conftest import TEMPLATE
from tests.model.templates import CHAT, with_template


@pytest.fixture(scope="module")
def reference(tokenizer_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tokenizer_folder)


def test_the_template_renders_the_reference_librarys_text(tokenizer, reference):
    for messages, prompt in ((CHAT, False), (CHAT[:2], True), (CHAT + CHAT[1:], False)):
        expected = reference.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert tokenizer.render(messages, add_generation_prompt=prompt) == expected
        segments = tokenizer.segments(messages, add_generation_prompt=prompt)
        assert "".join(segment.text for segment in segments) == expected


def test_a_model_without_a_template_says_so(tokenizer_folder, tmp_path):
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(tmp_path)).render(CHAT)


def test_named_templates_are_chosen_as_the_reference_library_does(tokenizer_folder, tmp_path):
    from transformers import AutoTokenizer

    by_name = {"default": "d{{ messages[0].content }}", "tool_use": "t{{ tools[0].name }}"}
    listed = [{"name": name, "template": template} for name, template in by_name.items()]
    ours = with_template(tokenizer_folder, tmp_path, listed)
    for step in ("in tokenizer_config.json", "in files"):
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        for tools in (None, [{"name": "f"}]):
            expected = theirs.apply_chat_template(CHAT, tools=tools, tokenize=False)
            assert ours.render(CHAT, tools=tools) == expected, step
        (tmp_path / "saved").mkdir()
        ours.save(tmp_path / "saved")
        assert load_tokenizer(str(tmp_path / "saved")).chat_templates == ours.chat_templates
        shutil.rmtree(tmp_path / "saved")
        by_name = {name: template + "!" for name, template in by_name.items()}
        (tmp_path / "chat_template.jinja").write_text(by_name["default"])
        (tmp_path / "additional_chat_templates").mkdir(exist_ok=True)
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text(by_name["tool_use"])
        ours = load_tokenizer(str(tmp_path))
    assert ours.chat_template.endswith("!")


def test_a_list_of_templates_without_a_default_names_them(tokenizer_folder, tmp_path):
    with pytest.raises(UserError, match="it has only rag"):
        with_template(tokenizer_folder, tmp_path, [{"name": "rag", "template": "x"}]).render(CHAT)


def test_template_options_hold_for_every_rendering(tokenizer_folder, tmp_path):
    with_template(tokenizer_folder, tmp_path, TEMPLATE.replace("assistant\n", "assistant\n{{ mood }}"))
    tokenizer = load_tokenizer(str(tmp_path), template_options={"mood": "glad"})
    assert tokenizer.render(CHAT[:2], add_generation_prompt=True).endswith("assistant\nglad")


CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


def test_a_template_renders_and_splits_without_a_tokenizer():
    template = ChatTemplate({"default": TEMPLATE}, control_tokens=CONTROL, variables={})
    assert (template.turn_end, template.fallback_generation_prompt) == ("<|im_end|>", "")
    segments = split_conversation(template, CHAT)
    assert "".join(segment.text for segment in segments) == template.render(CHAT)
    assert [s.text for s in segments if s.is_supervised] == [CHAT[-1]["content"], "<|im_end|>"]
    assert sum(segment.is_special for segment in segments) == 2 * len(CHAT)  # none of those that the messages contain


def test_no_part_of_the_template_knows_the_tokenizer():
    for module in (chat_template, conversation, unrendered):
        assert "tokenizer." not in inspect.getsource(module).partition("from __future__")[2], module.__name__


def test_the_longest_control_token_is_found_where_several_begin():
    template = ChatTemplate({}, control_tokens=["<a>", "<a>>", "<b>"], variables={})
    assert template.split_control("x<a>><b><a>") == [("x", False), ("<a>>", True), ("<b>", True), ("<a>", True)]
    assert ChatTemplate({}, control_tokens=[], variables={}).split_control("<a>") == [("<a>", False)]


@pytest.mark.parametrize(
    ("template", "turn_end", "lead"),
    [
        (TEMPLATE, "<|im_end|>", ""),
        (TEMPLATE.split("{% if add")[0], "<|im_end|>", "<|im_start|>assistant\n"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None, "assistant: "),
    ],
)
def test_turn_end_and_generation_prompt_are_found_by_rendering(template, turn_end, lead):
    found = ChatTemplate({"default": template}, control_tokens=CONTROL, variables={})
    assert (found.turn_end, found.fallback_generation_prompt) == (turn_end, lead)


def test_a_template_that_omits_answers_is_refused():
    template = ChatTemplate({"default": "{{ messages[0].content }}"}, control_tokens=CONTROL, variables={})
    with pytest.raises(UserError, match="omits the assistant's messages"):
        _ = template.turn_end
