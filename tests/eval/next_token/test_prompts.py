from __future__ import annotations

import pytest

from common.console import UserError
from common.files import write_jsonl
from data.masking import encode_prompt
from eval.next_token.prompts import Prompt, read_prompts

TEXT = "def add(a, b):\n    return a + b\n"
CHAT = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a + b"}]}


def test_a_window_keeps_the_place_asked_about():
    ids = list(range(100))
    for at in (1, 40, 97, 100):
        cut = Prompt("p", "seen", ids, at).cut(20)
        assert len(cut.input_ids) == 20 and cut.input_ids[cut.at - 1] == at - 1
    assert Prompt("p", "seen", ids, 100).cut(20).at == 20 and Prompt("p", "seen", ids, 30).cut(200).at == 30


def test_a_row_is_asked_for_the_first_token_of_its_answer(tmp_path, tokenizer):
    write_jsonl(
        tmp_path / "rows.jsonl",
        [{**CHAT, "text": "a copy"}, {"id": "t", "text": TEXT}, {"prompt": "x"}, {"text": "left out"}],
    )
    first, text, open_ended = read_prompts(tokenizer, tmp_path / "rows.jsonl", kind="seen", count=3, window=64)
    assert first.input_ids[: first.at] == encode_prompt(tokenizer, CHAT["messages"][:1])
    assert tokenizer.decode(first.input_ids[first.at :]).startswith("a + b") and first.name == "rows.jsonl:1"
    assert text.name == "t" and text.at == len(text.input_ids) == len(tokenizer.encode(TEXT))
    assert open_ended.at == len(open_ended.input_ids)
    write_jsonl(tmp_path / "bad.jsonl", [{"question": "x"}])
    with pytest.raises(UserError, match=r"bad.jsonl:1: .*missing"):
        read_prompts(tokenizer, tmp_path / "bad.jsonl", kind="seen", count=3, window=64)


def test_a_file_is_asked_for_its_middle(tmp_path, tokenizer):
    (tmp_path / "x.py").write_text(TEXT)
    (prompt,) = read_prompts(tokenizer, tmp_path, kind="unseen", count=5, window=11)
    assert prompt.input_ids == tokenizer.encode(TEXT)[:11] and prompt.at == 6 and prompt.kind == "unseen"
