"""Forgetting: what training on a corpus costs on texts that are not of it. The same texts before and after, paired."""

from __future__ import annotations

from common.console import UserError
from data.masking import Example
from data.replay import whole_example
from data.rows import is_conversation, named_line
from eval.compare import compare
from eval.perplexity import score
from model.decoder import Decoder
from model.loss import IGNORE
from model.tokenizer import Tokenizer


def probe(
    decoder: Decoder,
    tokenizer: Tokenizer,
    texts: dict[str, dict],
    *,
    window: int = 1024,
    most_tokens: int | None = None,
) -> dict:
    """Perplexity and bits per byte of other texts, in the form of eval/perplexity.py; of conversations, of the answers.

    texts        {name: row} of data.replay
    window       tokens that the model sees at once
    most_tokens  of each text only this many tokens from its start; one with nothing supervised there is left out,
                 and n says how many were measured. UserError when none is
    """
    documents = []
    for name, row in texts.items():
        with named_line(name):
            whole = whole_example(tokenizer, row)
        example = Example(whole.input_ids[:most_tokens], whole.labels[:most_tokens])
        if example.supervised:
            if is_conversation(row):
                counted = [label for label in example.labels if label != IGNORE]
            else:
                counted = example.input_ids[len(tokenizer.prefix_ids) :]  # the first token is not predicted, yet text
            said = tokenizer.decode(counted)
            documents.append((name, example, len(said.encode())))
    if not documents:
        raise UserError(
            "no text to probe forgetting with: none has a token to predict among the first that are measured"
        )
    result = score(decoder, documents, window=window)
    result["settings"]["most_tokens"] = most_tokens
    return result


def forgetting(before: dict, after: dict) -> dict:
    """Two probes of the same texts: {"before", "after": metrics, "change": as eval.compare.compare gives it}."""
    return {"before": before["metrics"], "after": after["metrics"], "change": compare(before, after)}
