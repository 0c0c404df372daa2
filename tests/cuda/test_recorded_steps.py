"""Recorded decoding steps give what unrecorded ones give, and are recorded anew exactly when they must be.

A stand-in does on a CPU what a CUDA graph does: it notes a step's operators with the tensors that they read and write,
runs none that writes, refuses what waits for the device, and replays them at the same addresses. So a step that depends
on what Python has changed since, or on a tensor that has been replaced, gives something else.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora.adapter import use_adapter
from lora.prefix import Prefix
from lora.prompt import Prompt
from model import fast
from model.config import ModelConfig
from model.decoder import Decoder
from model.fast.cuda_graph import GraphedStep
from model.generate import Stop, generate
from model.sampling import Sampling

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
    "hidden_act": "silu", "tie_word_embeddings": True,
}  # fmt: skip
MISTRAL = {"model_type": "mistral", "sliding_window": 7}
PROMPTS = [[5, 9, 11, 30, 7], [8], [4, 17, 6, 3, 3, 12, 40, 41, 2, 9], [21, 22], [33, 3, 5, 7, 11, 13, 17, 19, 23]]
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "lift_fresh", "unique", "repeat_interleave"}


class Graph:
    """In place of torch.cuda.CUDAGraph."""

    made: list[Graph] = []  # noqa: RUF012 (emptied by the fixture)

    def __init__(self):
        self.calls, self.replays = [], 0
        Graph.made.append(self)

    def replay(self):
        self.replays += 1
        for operator, args, named, results in self.calls:
            for result, now in zip(tree_leaves(results), tree_leaves(operator(*args, **named)), strict=True):
                if isinstance(result, torch.Tensor) and result.data_ptr() != now.data_ptr():
                    result.copy_(now)

    def signature(self):
        """What is computed from which memory: the same for two recordings that a replay cannot distinguish."""
        made, steps = {}, []
        for operator, args, named, results in self.calls:
            constant = "lift_fresh" in str(operator)  # a number, wrapped anew by every step
            inputs = (
                [args[0].item()] if constant else [made.get(id(x), _outside(x)) for x in tree_leaves((args, named))]
            )
            for x in tree_leaves(results):
                made.setdefault(id(x), (len(made), x.shape, x.stride()))
            steps.append((str(operator), inputs))
        return steps


def _outside(x):
    return (x.data_ptr(), x.shape, x.stride(), x.dtype) if isinstance(x, torch.Tensor) else repr(x)


class Recording(TorchDispatchMode):
    """In place of torch.cuda.graph."""

    def __init__(self, graph, stream=None):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        named, schema = kwargs or {}, operator._schema
        name = schema.name.removeprefix("aten::")
        by_mask = "index" in name and any(x.dtype == torch.bool for x in _tensors(args[1:2]))
        a_number = name == "lift_fresh" and not args[0].ndim  # x[0] = 0, which a GPU fills in by itself
        if (name in WAITS and not a_number) or by_mask:
            raise RuntimeError(f"{schema.name}: operation not permitted when stream is capturing")
        values = dict(zip((a.name for a in schema.arguments), args, strict=False)) | named
        written = [values[a.name] for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
        if written:
            results = written[0] if len(written) == 1 else tuple(written)
        else:
            results = operator(*args, **named)
            inputs = {x.untyped_storage().data_ptr() for x in _tensors((args, named))}
            for fresh in _tensors(results):
                if fresh.is_floating_point() and fresh.untyped_storage().data_ptr() not in inputs:
                    fresh.fill_(float("nan"))  # a recording computes nothing
        self.graph.calls.append((operator, args, named, results))
        return results


def _tensors(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


@pytest.fixture
def cuda(monkeypatch):
    """Call it, and this CPU is a GPU for the cache and for what is recorded; returns the devices that streams got."""
    devices = []

    def stream(device=None):
        devices.append(device)
        return SimpleNamespace(wait_stream=lambda other: None)

    def begin():
        for module in ("model.pages", "model.generate"):  # `model.generate` as an attribute is the function
            monkeypatch.setattr(sys.modules[module], "on_gpu", lambda where: True)
        return devices

    Graph.made.clear()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Recording)
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    yield begin
    Graph.made.clear()


@pytest.fixture(params=["llama"])
def decoder(request):
    """In fp64, for a batch of another shape may round otherwise, and a draw may then fall on the next token."""
    family, _, virtual = request.param.partition(" with a ")
    decoder = Decoder(ModelConfig.from_dict(SIZES | (MISTRAL if family == "mistral" else {"model_type": "llama"})))
    if virtual:
        learnt = (Prefix if virtual == "prefix" else Prompt)(decoder, 4)
        use_adapter(decoder, {learnt.place: learnt})
    decoder = decoder.double().eval()
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return decoder


@pytest.fixture
def states(monkeypatch):
    """What each token of each sample was chosen from, by (prompt, sample, tokens before): filled by every step."""
    seen, step = {}, sys.modules["model.generate"]._Batch.step

    def watched(batch):
        step(batch)
        for row in batch.active:
            sample = batch.samples[row]
            seen[sample.prompt, sample.number, len(sample.ids)] = batch.hidden[row].clone()

    monkeypatch.setattr(sys.modules["model.generate"]._Batch, "step", watched)
    return seen


@pytest.fixture
def only_when_needed(monkeypatch):
    """A step is recorded anew if and only if a recording made now would read other memory than the last one does, or
    compute something else. Counts the steps, by whether it was.
    """
    call, counted = GraphedStep.__call__, Counter()

    def checked(step, tokens):
        before = step.recorded
        needed = before is None or len(before[1]) != len(tokens)
        needed = needed or _recording_now(step, before[1]).signature() != before[0].signature()
        hidden = call(step, tokens)
        assert (step.recorded is not before) == needed
        counted[needed] += 1
        return hidden

    monkeypatch.setattr(GraphedStep, "__call__", checked)
    return counted


def _recording_now(step, tokens):
    graph = Graph()
    Graph.made.remove(graph)
    with Recording(graph):
        step._step(tokens)
    return graph


@pytest.mark.parametrize(
    ("decoder", "samples", "rows", "page"),
    [
        ("llama", 1, 3, 3),
        ("llama", 4, 6, 3),
        ("llama", 4, 6, 64),
        ("mistral", 2, 5, 3),
        ("llama with a prefix", 1, 3, 3),
        ("mistral with a prefix", 2, 5, 3),
        ("mistral with a prompt", 2, 5, 3),
    ],
    indirect=["decoder"],
)
def test_recorded_steps_give_what_unrecorded_ones_give(
    decoder, cuda, states, only_when_needed, monkeypatch, samples, rows, page
):
    """Rows leave, others take their places, prompts come and go, the cache grows, and the last rows are kept alone."""
    monkeypatch.setattr("model.pages.PAGE", page)
    if page == 3:  # small pages, none of them made in advance
        monkeypatch.setattr("model.pages.RESERVED", 0)
    stop, sampling = Stop(max_new_tokens=9, ids=range(20, 24)), Sampling(1.3, samples=samples)
    expected = generate(decoder, PROMPTS, stop, sampling, rows=rows)
    unrecorded = dict(states)
    states.clear()
    devices = cuda()
    assert generate(decoder, PROMPTS, stop, sampling, rows=rows) == expected
    assert states.keys() == unrecorded.keys() and len({len(ids) for answers in expected for ids in answers}) > 2
    for at, state in states.items():
        assert_close(state, unrecorded[at], atol=1e-5, rtol=1e-5, msg=str(at))
    assert sum(graph.replays for graph in Graph.made) == sum(only_when_needed.values())
    assert len(Graph.made) == only_when_needed[True] and only_when_needed[False] > 0
    assert set(devices) == {decoder.device}


@pytest.mark.parametrize(("prompts", "samples", "rows"), [(40, 11, 160), (100, 1, 160), (1, 1, 160), (40, 1, 32)])
def test_hundreds_of_answers_of_any_length_take_at_most_three_recordings(cuda, prompts, samples, rows):
    decoder = Decoder(ModelConfig.from_dict(SIZES | {"model_type": "llama", "max_position_embeddings": 1024})).eval()
    cuda()
    asked = [[3 + n % 50] * (1 + 137 * n % 300) for n in range(prompts)]
    answers = generate(
        decoder, asked, Stop(max_new_tokens=256, ids=(1,)), Sampling(3.0, samples=samples), rows=rows
    )  # of 60 tokens one stops, so that lengths differ
    lengths = [len(ids) for of_prompt in answers for ids in of_prompt]
    assert len(lengths) == prompts * samples and (len(lengths) == 1 or max(lengths) > 128 > 16 > min(lengths))
    assert 1 <= len(Graph.made) <= 3 and sum(graph.replays for graph in Graph.made) >= max(lengths) - 1


def cache_of(decoder, prompts, rows):
    """A cache with these prompts read, and a row for each, then empty ones."""
    lanes = 2
    cache = decoder.new_cache(slots=len(prompts), lanes=lanes, rows=rows, longest=(16, 16))
    slots, lengths = list(range(len(prompts))), [len(prompt) for prompt in prompts]
    cache.admit(slots, lengths)
    decoder.hidden_states(torch.tensor([[token for prompt in prompts for token in prompt]]), lengths, cache)
    cache.seat(slots, slots, [0] * len(slots))
    return cache


def test_a_recording_leaves_the_cache_as_one_step_does(decoder, cuda):
    cuda()
    with torch.inference_mode():
        caches = [cache_of(decoder, PROMPTS[:2], rows=3) for _ in range(2)]
        step = GraphedStep(decoder, caches[0])
        for number in range(1, 4):
            for cache in caches:
                cache.reserve({0: number, 1: number})
            tokens = torch.tensor([number, 2 * number, 0])
            hidden = step(tokens)
            assert_close(hidden[:2], decoder.hidden_states(tokens[:, None], cache=caches[1])[:2, 0])
            assert caches[0].written.tolist() == [number, number, 0]
            for name in ("keys", "values"):
                ours, plain = (getattr(cache.answers, name)[:, 1:] for cache in caches)
                assert_close(ours, plain)
        assert len(Graph.made) == 1


def test_rows_kept_in_another_order_are_recorded_anew(decoder, cuda, only_when_needed):
    cuda()
    with torch.inference_mode():
        cache = cache_of(decoder, PROMPTS[:2], rows=2)
        step = GraphedStep(decoder, cache)
        for rows in ([0, 1], [1, 0], [1, 0]):
            cache.keep(rows)
            cache.reserve({0: 3, 1: 3})
            step(torch.tensor([3, 4]))


def test_the_stand_in_is_as_strict_as_a_graph():
    x, graph = torch.ones(2), Graph()
    with Recording(graph):
        y = (2 * x).add_(1)
    assert y.isnan().all() and x.tolist() == [1, 1]
    x.fill_(5)
    graph.replay()
    assert y.tolist() == [11, 11]
    for wait in (lambda: x.sum().item(), lambda: x[x > 0], lambda: torch.tensor([1]), lambda: x.nonzero()):
        with pytest.raises(RuntimeError, match="not permitted"), Recording(Graph()):
            wait()


def test_no_step_is_recorded_without_fast_forms(decoder, cuda):
    stop = Stop(max_new_tokens=4, ids=())
    expected = generate(decoder, PROMPTS, stop)
    cuda()
    with fast.off():
        assert generate(decoder, PROMPTS, stop) == expected
    assert not Graph.made
    assert generate(decoder, PROMPTS, stop) == expected and Graph.made
