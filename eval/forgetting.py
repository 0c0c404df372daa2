"""Forgetting: what training on a corpus costs on unrelated texts, measured on the same texts before and after."""

from __future__ import annotations

from common.console import UserError
from data.masking import Example
from data.replay import whole_example
from data.rows import is_conversation, named_line
from eval.compare import compare
from eval.perplexity import Document, score
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
    """Perplexity and bits per byte of unrelated texts, as an eval result of eval/perplexity.py.

    texts        {name: row} of data.replay; of a conversation only the answers are measured
    window       tokens the model sees at once
    most_tokens  measure only this many tokens from the start of each text. A text with no supervised token among
                 them is skipped; n is the number measured. UserError if none is left
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
            documents.append(Document(name, example, len(said.encode())))
    if not documents:
        raise UserError("no text to measure forgetting on: none has a supervised token within the measured part")
    result = score(decoder, documents, window=window)
    result["settings"]["most_tokens"] = most_tokens
    return result


def forgetting(before: dict, after: dict) -> dict:
    """Two probes of the same texts: {"before", "after": metrics, "change": as eval.compare.compare returns it}."""
    return {"before": before["metrics"], "after": after["metrics"], "change": compare(before, after)}
