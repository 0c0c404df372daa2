from __future__ import annotations

import json

import pytest

from common.console import UserError
from data.masking import plain_document, supervise
from data.replay import other_texts_summary, read_other_texts, replay_examples, whole_example
from data.rows import training_conversation

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
PAIR = {"instruction": "Add.", "input": "def add(a, b):", "output": "    return a + b", "text": "all of it"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(count, start=0):
    return [{"text": f"text {number} of other things\n"} for number in range(start, start + count)]


def read(replay=None, probe=None, corpus_texts=(), seed=0):
    return read_other_texts(replay, probe, corpus_texts=set(corpus_texts), seed=seed)


def test_texts_and_conversations_are_read_from_lines_and_texts_from_a_folder(tmp_path, tokenizer):
    other = read(write(tmp_path / "x.jsonl", [{"text": "a b c"}, CHAT, PAIR]), write(tmp_path / "p.jsonl", texts(1)))
    plain, chat, pair = (whole_example(tokenizer, row) for row in other.replay.values())
    assert plain == plain_document(tokenizer, "a b c")
    assert chat == supervise(tokenizer, CHAT["messages"])
    assert pair == supervise(tokenizer, training_conversation(PAIR).messages)  # Alpaca's "text" is not what is learnt
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for name in ("a.py", "sub/b.md", "c.rst", "d.txt", "e.json", "f.pyc"):
        (tmp_path / "folder" / name).write_text(f"in {name}\n")
    other = read(str(tmp_path / "folder"), write(tmp_path / "p.jsonl", texts(1)))
    assert other.replay == {name: {"text": f"in {name}\n"} for name in ("a.py", "c.rst", "d.txt", "sub/b.md")}


def test_nothing_is_replayed_that_is_probed_or_of_the_corpus_and_what_is_left_out_is_counted(tmp_path):
    rows = [*texts(4), *texts(1), {"text": " \n"}]
    probe = write(tmp_path / "p.jsonl", [*texts(1, start=3), *texts(1, start=9)])
    other = read(write(tmp_path / "x.jsonl", rows), probe, corpus_texts=[texts(2)[1]["text"]])
    assert [row["text"][:6] for row in other.replay.values()] == ["text 0", "text 2"]
    assert [row["text"][:6] for row in other.probe.values()] == ["text 3", "text 9"]
    assert other.lost == {"empty": 1, "repeated": 3}
    assert other_texts_summary(other) == (
        "other    2 texts to replay from, 2 to probe forgetting with · left out: 1 empty, 3 repeated"
    )


def test_without_a_probe_one_text_in_five_is_kept_for_it(tmp_path):
    place = write(tmp_path / "x.jsonl", texts(23))
    other = read(place)
    assert len(other.probe) == 5 and len(other.replay) == 18 and not other.probe.keys() & other.replay.keys()
    assert other == read(place) and other.probe != read(place, seed=1).probe
    assert len(read(write(tmp_path / "y.jsonl", texts(400))).probe) == 50


def test_a_probe_needs_no_replay_and_neither_is_needed(tmp_path):
    other = read(probe=write(tmp_path / "x.jsonl", texts(3)))
    assert len(other.probe) == 3 and other.replay == {}
    assert (read().replay, read().probe) == ({}, {})


def test_the_hash_tells_other_texts_apart(tmp_path):
    one, same = (read(write(tmp_path / name, texts(9))).sha256() for name in ("x.jsonl", "x.jsonl"))
    assert one == same != read(write(tmp_path / "x.jsonl", texts(9, start=1))).sha256()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": "x"}, r'x.jsonl:2: "text", or the fields .* \(this line has: body\)'),
        ({"text": 3}, "x.jsonl:2: "),
        ({"instruction": "x", "response": "y"}, 'x.jsonl:2: "output" is missing'),
        ({"messages": [{"role": "user", "content": "x"}]}, "x.jsonl:2: .*an assistant message"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, reason):
    with pytest.raises(UserError, match=reason):
        read(write(tmp_path / "x.jsonl", [*texts(1), row]))


@pytest.mark.parametrize(
    ("rows", "reason"), [([], "to replay"), (texts(1), "to replay"), ([{"text": ""}] * 3, "to replay")]
)
def test_nothing_left_is_refused(tmp_path, rows, reason):
    with pytest.raises(UserError, match=rf"x\.jsonl: no text is left {reason}"):
        read(write(tmp_path / "x.jsonl", rows))
    with pytest.raises(UserError, match=r"p\.jsonl: no text is left to probe"):
        read(probe=write(tmp_path / "p.jsonl", []))
    with pytest.raises(UserError, match="no such file"):
        read(str(tmp_path / "none"))


def test_the_share_is_of_the_learnt_tokens_of_both(tokenizer):
    rows = {str(number): row for number, row in enumerate(texts(300))}
    for share in (0.05, 0.2, 0.5):
        drawn, counts = replay_examples(rows, tokenizer, size=64, beside=2000, share=share, seed=0)
        got = sum(example.supervised for example in drawn)
        longest = max(example.supervised for example in drawn)
        assert abs(got - 2000 * share / (1 - share)) <= longest / 2
    assert counts == {"pieces": 300, "cut": 0, "dropped": 0}


def test_the_answers_alone_count_and_are_learnt_of_a_conversation(tokenizer):
    drawn, _ = replay_examples({"a": CHAT, "b": CHAT}, tokenizer, size=64, beside=10, share=0.5, seed=0)
    assert drawn == [supervise(tokenizer, CHAT["messages"])] * 2  # 6 tokens an answer: one would not be enough
    assert drawn[0].supervised < 10 < len(drawn[0].input_ids)


def test_pieces_are_drawn_by_the_seed_from_all_texts_and_fit_a_row(tokenizer):
    rows = {str(number): {"text": f"a long text, number {number}\n" * 30} for number in range(6)}
    first, counts = replay_examples(rows, tokenizer, size=50, beside=900, share=0.4, seed=0)
    again, _ = replay_examples(dict(reversed(rows.items())), tokenizer, size=50, beside=900, share=0.4, seed=0)
    assert first == again != replay_examples(rows, tokenizer, size=50, beside=900, share=0.4, seed=1)[0]
    assert max(len(example.input_ids) for example in first) <= 50 and len(first) < counts["pieces"]
    assert len({tokenizer.decode(example.input_ids)[-30:] for example in first}) > 3  # not one long text alone


def test_conversations_that_do_not_fit_are_counted(tokenizer):
    long = {"prompt": "hi", "completion": "hello " * 99}
    no_room = {"prompt": "hi " * 99, "completion": "hello"}
    drawn, counts = replay_examples({"a": long, "b": no_room}, tokenizer, size=80, beside=999, share=0.5, seed=0)
    assert counts == {"pieces": 1, "cut": 1, "dropped": 1} and len(drawn[0].input_ids) == 80


@pytest.mark.parametrize("share", [0, 1, -0.5, 2.0])
def test_an_impossible_share_is_refused(tokenizer, share):
    with pytest.raises(UserError, match="--replay-share"):
        replay_examples({"a": CHAT}, tokenizer, size=64, beside=10, share=share, seed=0)
