from __future__ import annotations

from common.markdown import blocks
from data.masking import plain_document
from eval.continuations import continuations
from model import Stop, generate

FILES = [("a.py", "x = 1\n" * 30), ("b.py", "y = 2\n"), ("c.py", "z = 3\n")]


def test_a_sample_shows_the_head_of_a_file_and_the_greedy_continuation(tiny, tokenizer):
    text = continuations(tiny, tokenizer, FILES, count=2)
    head, _, short, continued = (block.text for block in blocks(text))
    assert head == "x = 1\n" * 20 and short == "y = 2\n" and "c.py" not in text
    prompt = plain_document(tokenizer, "y = 2\n\n").input_ids[:-1]
    stop = Stop(max_new_tokens=64, ids=tokenizer.stop_ids)
    ((ids,),) = generate(tiny, [prompt], stop, unused_ids=tokenizer.unused_ids)
    assert continued.strip() == tokenizer.decode(ids).strip()
