"""The likelihood of each label as the answer to a question.

    prompt ─┬─ person <|im_end|>      log p = log p(person | prompt) + log p(<|im_end|> | prompt, person)
            ├─ place  <|im_end|>
            └─ named  entity  <|im_end|>

A label is encoded as training encodes it, up to and including the token that ends the turn: without that token, a label
that begins another one ("entity" and "entity name") could never be less likely than the longer one.

Two scores are in use. The whole log-probability is what a tuned model was trained on, and right for it. The mean over
the tokens (length-normalised: GPT-3, arXiv:2005.14165) does not favour short labels in an untrained model, but favours
words of many tokens, whose later ones follow from the first ("abbreviation" among TREC's labels).
"""

from __future__ import annotations

import math

import torch

from common.console import UserError, progress
from data.masking import encode_prompt, supervise
from data.rows import named_line
from data.text_rows import filled_prompt, task_of
from model.decoder import Decoder
from model.generate import PREFILL_TOKENS
from model.loss import IGNORE
from model.tokenizer import Tokenizer

ROWS = 160  # labels that are scored together, as many as answers grow together in model/generate.py
NO_CONTENT = ("N/A", "[MASK]", "")  # texts that say nothing (arXiv:2102.09690, section 5)


Scores = dict[str, dict[str, float]]  # id of a task -> label -> score


def label_log_probs(
    decoder: Decoder, tokenizer: Tokenizer, tasks: list[dict], labels: list[str], *, where: str = "data"
) -> dict[str, dict[str, list[float]]]:
    """{id: {label: log-probability of each of its tokens, in nats}} of the tasks of `read_text_tasks`."""
    prompts, continuations = [], []
    for number, task in enumerate(tasks, 1):
        with named_line(f"{where}:{number}"):
            prompts.append(encode_prompt(tokenizer, task["messages"], tools=task["tools"]))
            continuations.append([label_ids(tokenizer, task, prompts[-1], label) for label in labels])
    log_probs = continuation_log_probs(decoder, prompts, continuations)
    return {task["id"]: dict(zip(labels, of_task, strict=True)) for task, of_task in zip(tasks, log_probs, strict=True)}


def whole(log_probs: dict[str, dict[str, list[float]]]) -> Scores:
    """The log-probability of each label: the sum over its tokens."""
    return {id_: {label: sum(one) for label, one in of_task.items()} for id_, of_task in log_probs.items()}


def per_token(log_probs: dict[str, dict[str, list[float]]]) -> Scores:
    """The same, length-normalised: the mean over its tokens."""
    return {id_: {label: sum(one) / len(one) for label, one in of_task.items()} for id_, of_task in log_probs.items()}


def label_ids(tokenizer: Tokenizer, task: dict, prompt: list[int], label: str) -> list[int]:
    """The supervised tokens of a label as the answer to a task: what training predicts after the prompt."""
    messages = [*task["messages"], {"role": "assistant", "content": label}]
    example = supervise(tokenizer, messages, tools=task["tools"])
    assert example.input_ids[: len(prompt)] == prompt  # one seam: the prompt's ids are a prefix
    last = max(at for at, id_ in enumerate(example.labels) if id_ != IGNORE)
    return example.input_ids[len(prompt) : last + 1]


@torch.inference_mode()
def continuation_log_probs(
    decoder: Decoder, prompts: list[list[int]], continuations: list[list[list[int]]]
) -> list[list[list[float]]]:
    """log p of every token of every continuation, in nats: [prompt][continuation][token].

    prompts        token ids, none empty
    continuations  of each prompt, equally many (two or more), none empty
    A prompt is read once for all of its continuations, which then grow token by token over its pages of the cache.
    """
    longest = max((len(p) + max(map(len, of_p)) for p, of_p in zip(prompts, continuations, strict=True)), default=0)
    if longest > decoder.max_tokens:
        limit = decoder.max_tokens
        raise UserError(f"a prompt and a label of {longest} tokens together exceed the model's {limit} positions")

    # prompts of about equal length together
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found: list[list[list[float]]] = [[] for _ in prompts]
    was_training = decoder.training
    decoder.eval()
    with progress(what="scoring labels", total=len(prompts), unit="prompt") as bar:
        while order:
            now = _batch(order, prompts, len(continuations[order[0]]), PREFILL_TOKENS[decoder.device.type])
            order = order[len(now) :]
            scored = _score(decoder, [prompts[i] for i in now], [continuations[i] for i in now])
            for i, of_prompt in zip(now, scored, strict=True):
                found[i] = of_prompt
            bar.update(len(now))
    decoder.train(was_training)
    return found


def _batch(order: list[int], prompts: list[list[int]], labels: int, most_tokens: int) -> list[int]:
    """The next prompts whose labels fill ROWS rows and whose tokens fit a pass; at least one."""
    count, tokens = 0, 0
    for i in order[: max(1, ROWS // labels)]:
        tokens += len(prompts[i])
        if count and tokens > most_tokens:
            break
        count += 1
    return order[:count]


def _score(decoder: Decoder, prompts: list[list[int]], continuations: list[list[list[int]]]) -> list[list[list[float]]]:
    """The same for one batch of P prompts with K continuations each: R = P · K rows of the cache."""
    each, device = len(continuations[0]), decoder.device
    rows = [ids for of_prompt in continuations for ids in of_prompt]
    slots = [slot for slot in range(len(prompts)) for _ in range(each)]
    lengths, longest = [len(prompt) for prompt in prompts], max(map(len, rows))

    # the prompts, packed: the hidden state at the end of each predicts the first token of all its continuations
    cache = decoder.new_cache(slots=len(prompts), lanes=each, rows=len(rows), longest=(max(lengths), longest))
    cache.admit(list(range(len(prompts))), lengths)
    packed = torch.tensor([[token for prompt in prompts for token in prompt]], device=device)
    hidden = decoder.hidden_states(packed, lengths, cache)[0]  # [T, D]
    hidden = hidden[torch.tensor(lengths, device=device).cumsum(0) - 1]  # [P, D]
    log_p = decoder.logits(hidden).float().log_softmax(-1)[slots]  # [R, V]

    # then a token of every row at a time, each read off the distribution before it; short rows end with any token
    cache.seat(list(range(len(rows))), slots, list(range(each)) * len(prompts))
    padded = torch.tensor([ids + ids[-1:] * (longest - len(ids)) for ids in rows], device=device)  # [R, longest]
    found = []
    for at in range(longest):
        found.append(log_p.gather(1, padded[:, at : at + 1]))  # [R, 1]
        if at + 1 < longest:
            cache.reserve(dict.fromkeys(range(len(rows)), at + 1))
            hidden = decoder.hidden_states(padded[:, at : at + 1], cache=cache)[:, 0]  # [R, D]
            log_p = decoder.logits(hidden).float().log_softmax(-1)

    # without the tokens that only fill up
    log_probs = torch.cat(found, dim=1).tolist()
    flat = [values[: len(ids)] for values, ids in zip(log_probs, rows, strict=True)]
    return [flat[start : start + each] for start in range(0, len(flat), each)]


def without_content(row: dict, task: dict) -> list[dict]:
    """Tasks that ask what a text row asks, about texts that say nothing; `task` is the row as `read_text_tasks` has it.

    UserError for a row that is no text row.
    """
    kind = task_of(row)
    if kind is None:
        raise UserError("--calibrate empties the text of text rows; these are rows of another form")
    fields = [field for field in ("text", "question", "context") if row.get(field)]
    emptied = [filled_prompt(kind, row | dict.fromkeys(fields, text)) for text in NO_CONTENT]
    return [
        task | {"id": f"no content {number}", "messages": [*task["messages"][:-1], {"role": "user", "content": prompt}]}
        for number, prompt in enumerate(emptied)
    ]


def calibrated(scores: Scores, of_nothing: Scores) -> Scores:
    """Contextual calibration (Zhao et al., arXiv:2102.09690): probabilities over the labels, divided by those that the
    labels have where there is no content, and so free of what a model says anyway. Returned as logarithms.

    Up to a constant of each task this is pointwise mutual information with an empty text (arXiv:2104.08315).
    """
    shares = [_log_shares(of_task) for of_task in of_nothing.values()]
    prior = {label: math.log(sum(math.exp(one[label]) for one in shares) / len(shares)) for label in shares[0]}
    return {
        id_: _log_shares({label: value - prior[label] for label, value in _log_shares(of_task).items()})
        for id_, of_task in scores.items()
    }


def _log_shares(scores: dict[str, float]) -> dict[str, float]:
    """Scores as log-probabilities that sum to one over the labels."""
    most = max(scores.values())
    total = most + math.log(sum(math.exp(value - most) for value in scores.values()))
    return {label: value - total for label, value in scores.items()}
