from __future__ import annotations

import json

import pytest

from data.rows import Conversation, conversation_of, training_conversation, unread_fields

TOOL = {"type": "function", "function": {"name": "read_clock", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "read_clock", "arguments": {"zone": "UTC"}}}


def said(role, content, **more):
    return {"role": role, "content": content, **more}


CHAT = [said("user", "a"), said("assistant", "b")]
CALLING = [said("user", "a"), said("assistant", "", tool_calls=[CALL]), said("tool", "12:00"), said("assistant", "b")]


def called(call, **more):
    return {"messages": [CALLING[0], {"role": "assistant", "tool_calls": [call], **more}, *CALLING[2:]]}


@pytest.mark.parametrize(
    ("row", "messages", "tools"),
    [
        ({"instruction": "a", "output": "b", "system": "s"}, [said("system", "s"), *CHAT], None),
        ({"prompt": "a", "completion": "b", "system": "s"}, [said("system", "s"), *CHAT], None),
        ({"messages": CHAT, "system": "s"}, [said("system", "s"), *CHAT], None),
        ({"messages": [said("system", "s"), *CHAT], "system": "s"}, [said("system", "s"), *CHAT], None),
        (
            {"instruction": "a", "output": "b", "history": [["c", "d"], ["e", "f"]]},
            [said("user", "c"), said("assistant", "d"), said("user", "e"), said("assistant", "f"), *CHAT],
            None,
        ),
        ({"instruction": "i", "input": "j", "output": "b"}, [said("user", "i\n\nj"), CHAT[1]], None),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, CHAT, None),
        ({"prompt": CHAT[:1], "completion": "b"}, CHAT, None),
        (  # TRL learns the completion alone
            {"prompt": [*CHAT, said("user", "c")], "completion": CHAT[1:]},
            [CHAT[0], said("assistant", "b", weight=0), said("user", "c"), CHAT[1]],
            None,
        ),
        ({"messages": CHAT, "tools": [TOOL]}, CHAT, [TOOL]),
        ({"messages": CHAT, "tools": json.dumps([TOOL])}, CHAT, [TOOL]),
        ({"messages": json.dumps(CHAT)}, CHAT, None),
        (called(CALL), CALLING, None),
        (called(CALL, content=None), CALLING, None),
        (called({"name": "read_clock", "arguments": '{"zone": "UTC"}'}), CALLING, None),
        (called({"function": {"name": "read_clock", "arguments": '{"zone": "UTC"}'}}, content=""), CALLING, None),
        (
            {"messages": [CHAT[0], {"role": "assistant", "content": [{"type": "text", "text": "b"}, "c"]}]},
            [CHAT[0], said("assistant", "b\nc")],
            None,
        ),
        (
            {"prompt": "a", "completion": "b", "reasoning_content": "t"},
            [CHAT[0], said("assistant", "b", reasoning_content="t")],
            None,
        ),
        # columns of a table in which this row says nothing
        ({"messages": CHAT, "prompt": None, "tools": [], "images": [], "system": "", "history": None}, CHAT, None),
        ({"messages": [{**CHAT[0], "tool_calls": None, "weight": None}, CHAT[1]], "rejected": ""}, CHAT, None),
        # the same once more, as many published sets have it
        ({"messages": [said("user", "What is it?"), CHAT[1]], "prompt": "What is it?", "output": "b"}, None, None),
        ({"instruction": "a", "output": "b", "prompt": "Below is an instruction: a\n\nResponse: b"}, CHAT, None),
        ({"messages": CHAT, "id": 1, "category": "x", "source": {}, "label": True, "weight": 1}, CHAT, None),
    ],
)  # fmt: skip
def test_what_a_row_says_is_in_its_conversation(row, messages, tools):
    found = training_conversation(row)
    assert found == Conversation(messages or row["messages"], tools)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"conversations": [{"from": "human", "value": "a"}]}, '"conversations" is not read: rename it to "messages"'),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, '"chosen" is one side of a preference'),
        ({"prompt": "a", "completion": "b", "label": False}, '"label" is false'),
        ({"messages": CHAT, "images": ["x.png"]}, '"images" is not read: only text'),
        ({"messages": CHAT, "functions": [TOOL]}, '"functions" is not read: write "tools"'),
        ({"messages": CHAT, "documents": [{"text": "d"}]}, '"documents" is not read'),
        ({"messages": CHAT, "chat_template_kwargs": {"enable_thinking": False}}, '"chat_template_kwargs" is not read'),
        ({"messages": CHAT, "loss_mask": [0, 1]}, '"loss_mask" is not read: give an answer .* "weight": 0'),
        ({"messages": CHAT, "weight": 0}, '"weight" is 0'),
        ({"messages": CHAT, "weight": 0.5}, '"weight" is 0.5'),
        ({"messages": CHAT, "train": False}, '"train" is False'),
        ({"messages": CHAT, "instruction": "Be brief."}, '"instruction" beside "messages" is not read'),
        ({"messages": CHAT, "history": [["c", "d"]]}, '"history" beside a list of messages'),
        ({"prompt": CHAT[:1], "completion": "b", "history": [["c", "d"]]}, '"history" beside a list of messages'),
        ({"messages": CHAT, "reasoning_content": "t"}, '"reasoning_content" beside a list of messages'),
        ({"messages": [said("system", "t"), *CHAT], "system": "s"}, '"system" beside a system message'),
        ({"messages": CHAT, "tools": "read_clock"}, '"tools" must be a list'),
        ({"instruction": "a", "output": "b", "system_prompt": "s"}, '"system_prompt" is not read: rename it'),
        ({"instruction": "a", "output": "b", "context": "c"}, '"context" is not read: rename it to "input"'),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, '"history" must be a list of'),
        ({"instruction": "a", "output": "b", "thinking": "t"}, '"thinking" is not read: rename it'),
        ({"instruction": "a", "output": "", "tool_calls": [CALL]}, '"tool_calls" is not read: write the row'),
        ({"prompt": "a", "completion": CHAT[1:], "reasoning_content": "t"}, '"reasoning_content" beside a list'),
        ({"messages": [said("human", "a"), said("assistant", "b")]}, 'message 1: the role "human" is called "user"'),
        ({"messages": [CHAT[0], said("gpt", "b")]}, 'message 2: the role "gpt" is called "assistant" here'),
        ({"messages": [CHAT[0], said("Assistant", "b")]}, 'message 2: the role "Assistant" is called'),
        ({"messages": [said("user", [{"type": "image_url"}]), CHAT[1]]}, 'message 1: a part of the type "image_url"'),
        ({"messages": [CHAT[0], said("assistant", None)]}, 'message 2: "content" must be a string'),
        ({"messages": [CHAT[0], said("assistant", "b", weight=0.5)]}, 'message 2: "weight" must be 0 or 1'),
        ({"messages": [said("user", "a", train=True), CHAT[1]]}, 'message 1: "train" asks to learn a user message'),
        ({"messages": [CHAT[0], said("assistant", "b", loss_mask=0)]}, 'message 2: "loss_mask" is not read'),
        ({"messages": [CHAT[0], said("assistant", "", function_call={"name": "f"})]}, '"function_call" is not read'),
        (called({"function": {"name": "f", "arguments": "{"}}), 'message 2: the "arguments" of f must be'),
        (called({"function": {"arguments": "{}"}}), 'message 2: a tool call without a "name"'),
        ({"messages": [CHAT[0], said("assistant", " "), *CHAT]}, "message 2: the answer is empty"),
        ({"messages": [CHAT[0], said("assistant", "b", weight=0)]}, "no answer in this row is to be trained on"),
        ({"messages": CALLING[:3]}, '"an assistant message" is missing'),
        ({"prompt": [], "completion": "b"}, '"prompt" must be a list of'),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(row, reason):
    with pytest.raises(ValueError, match=reason):
        training_conversation(row)


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}, {"loss": False}, {"weight": 0.0}])
def test_an_answer_that_is_not_to_be_learnt_says_so_in_one_way(flag):
    turns = [CHAT[0], said("assistant", "wrong", **flag), *CHAT, said("user", "c"), said("assistant", "", **flag)]
    found = training_conversation({"messages": turns})
    assert found.messages == [CHAT[0], said("assistant", "wrong", weight=0), *CHAT]  # nothing is learnt after that


def test_a_question_needs_no_answer():
    found = conversation_of({"instruction": "a", "system": "s", "tools": [TOOL]})
    assert found.answer is None and found.question == found
    assert conversation_of({"messages": CHAT, "tools": [TOOL]}).question == Conversation(CHAT[:1], [TOOL])


def test_fields_that_are_not_read_are_told():
    rows = [{"messages": CHAT, "id": 1, "score": 3, "notes": ""}, {"messages": CHAT, "tools": [TOOL], "lang": "en"}]
    assert unread_fields(rows) == ["score", "lang"]
