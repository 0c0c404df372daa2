"""Every CUDA path, walked on a device that does nothing (tests/cuda/README.md).

What a GPU would refuse, where the host would wait for it, and that a step asks for no more than it did. One process
walks; what each walk brought home is then looked at by tests of its own. `make test` walks once over each idea, which
takes a minute; `make slow` walks the combinations and the longer commands too.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cuda.fake import build

ROOT = Path(__file__).resolve().parents[2]
FIGURES = json.loads((ROOT / "tests/cuda/figures.json").read_text())
REWRITE = "python -m tests.cuda.fake --write"
RATCHETS = ("launches", "bytes_per_token", "saved_bytes_per_token", "recordings")
SLACK = 1.01

# Each method, kind of rows, family with a difference, rule of sampling, and command that trains nothing.
EVERYDAY = {
    "train full, checkpointing none, single rows, 8.0, adamw",
    "train lora, checkpointing selective, single rows, 9.0, adamw",
    "train lora, checkpointing none, packed rows, 7.5, adamw8bit",
    "train nf4, checkpointing full, packed rows, 7.5, adamw",
    "train dora, checkpointing offload, packed rows, 7.5, adamw",
    "train gemma2", "train mistral", "train full qwen3",
    "train_sft, LoRA+ and rsLoRA with dropout", "train with fp32 modules, 7.5",
    "train prefix", "train prompt, qwen3", "train ia3", "train bitfit of norms", "train houlsby, 7.5",
    "train pfeiffer, 7.5",
    "sample greedily", "sample top-k, min-p, penalty, 7.5", "sample after a prefix", "sample one answer each",
    "encode bert", "encode xlm-roberta", "encode modernbert", "encode qwen3",
    "train_embed bert", "train_embed in chunks, LoRA",
    "train_cpt.py --fit --dry-run", "chat.py", "eval.perplexity, eval.next_token", "eval.retrieval, search.py",
    "answers of eval.instruct", "exports",
}  # fmt: skip

# Where the host may wait for the device, and why it has to. How often it does in each walk is in figures.json.
WAITS = {
    # a training step
    "data/packing.py:to_batch write": "the row's tokens and labels",
    "model/fast/attention.py:_borders write": "the borders of the row's documents, once for all layers",
    "model/fast/attention.py:_try_borders read": "whether the kernel knows borders: once a process",
    "model/fast/cross_entropy.py:chunked_cross_entropy shape": "how many positions are supervised",
    "training/precision.py:step read": "the gradient norm, and with unfused optimisers what GradScaler found",
    "training/precision.py:scale read": "the loss scale, for the log",
    "train_cpt.py:learn read": "the loss and the supervised tokens, for the log",
    "train_sft.py:learn read": "the loss and the supervised tokens, for the log",
    "train_embed.py:learn read": "the loss and the temperature, for the log",
    "training/overflow.py:hook read": "after an overflow alone: which module's output is not finite",
    "training/validation.py:validation_loss read": "the loss and the tokens of a row, while nothing is trained",
    "training/fit.py:measure_pass read": "the end of the pass whose time is taken",
    "lora/nf4.py:_pairs write": "the table of NF4's levels, once a process",
    # a step of embedding training
    "model/encoder.py:pack write": "the texts' tokens",
    "model/encoder.py:encode_batch read": "the vectors, which are asked for on the host",
    "model/loss.py:distillation shape": "how many queries have a teacher's score",
    "training/contrastive_loss.py:forward write": "documents that are no negatives, and the teacher's scores",
    "train_embed.py:make_loss write": "the temperature, once",
    # sampling: the tokens go to the host, which decides who goes on, and back
    "model/pages.py:_lay_out write": "the pages' owners, when some come or go",
    "model/cache.py:admit write": "new prompts' lengths and slots",
    "model/pages.py:places write": "where new prompts go, and a prefix once",
    "model/pages.py:keep write": "pages that are kept when rows are let go",
    "model/cache.py:seat write": "rows that begin or end",
    "model/cache.py:keep write": "rows that go on when others are let go",
    "model/generate.py:__init__ write": "which ids have no token, once",
    "model/generate.py:_prefill write": "new prompts' tokens",
    "model/generate.py:_shrink_to write": "rows that go on when others are let go",
    "model/generate.py:choose read": "the tokens that were chosen",
    "model/generate.py:choose write": "which rows are active, when some are not",
    "model/generate.py:refill write": "rows that begin",
    "model/generate.py:step write": "the tokens to go on from",
    "model/sampling.py:_next_tokens write": "temperatures and random numbers",
    "model/sampling.py:_draw shape": "which rows' nucleus is larger than what was looked at",
    # measuring
    "eval/perplexity.py:nats_of read": "the loss of a window",
    "eval/worst_predictions.py:worst_predictions read": "the most surprising token",
    "eval/worst_predictions.py:worst_predictions write": "a file's tokens",
    "eval/next_token/distributions.py:compare_prompt write": "a prompt's tokens",
    "eval/next_token/distributions.py:_positions read": "figures of each position",
    "eval/next_token/distributions.py:_top read": "the likeliest tokens",
    # files
    "model/safetensors_file.py:read write": "a piece of a weight from the mapped file",
    "model/weights.py:save_network read": "a weight to write",
    "model/export/gguf.py:write_gguf read": "a weight to write",
    "lora/adapter_file.py:load_adapter write": "an adapter's matrix",
    "lora/adapter_file.py:write_adapter read": "an adapter's matrix to write",
    "training/checkpoint.py:load_checkpoint write": "a parameter or moment",
    "training/checkpoint.py:save_checkpoint read": "a parameter or moment to write",
    "training/validation.py:update read": "a parameter to write",
    "training/validation.py:restore write": "a parameter as it was when it was best",
}

# Matrix products in fp32 are meant: DoRA's lengths of rows, similarities of an encoder's vectors, an adapter folded in.
IN_FP32 = {
    "train prefix, gemma2, 7.5": 8,  # the MLP that makes it
    "train dora": 42,
    "train_embed": 36,
    "train pfeiffer": 15,  # on the residual stream
    "train with fp32 modules": 30,
    "train_cpt.py overflowing": 202,
    "chat.py": 14,
    "exports": 42,
    "eval.perplexity, eval.next_token": 58,  # the second is in fp32
}


@pytest.fixture(scope="session")
def walked(tmp_path_factory, worker_id) -> Callable[[str], dict[str, dict]]:
    """Of a walk's name: the figures of all walks of its kind, everyday or not, by name."""
    if reason := build.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # a fake device has nothing to share among threads

    @functools.cache
    def walk(is_everyday: bool) -> dict[str, dict]:
        """Of several test processes, the first one walks."""
        others = [name for name in FIGURES if (name in EVERYDAY) != is_everyday]
        out = folder / f"walked-{is_everyday}.json"
        with FileLock(f"{out}.lock"):
            if not out.is_file():
                command = [sys.executable, "-m", "tests.cuda.fake", str(out), "--without", *others]
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr[-5000:]
        return json.loads(out.read_text())

    return lambda name: walk(name in EVERYDAY)


@pytest.fixture
def found(walked, name) -> dict:
    figures = walked(name)[name]
    if "error" in figures:
        pytest.fail(f"{name} does not reach its end:\n{figures['error']}")
    return figures


def walks(chosen=FIGURES):
    """Parametrize a test by walks: by those that are not of every day in `make slow`."""
    marks = {True: (), False: pytest.mark.slow}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name in EVERYDAY]) for name in chosen])


each_walk = walks()


def test_every_walk_has_figures_to_compare_with(walked):
    assert walked("chat.py").keys() == EVERYDAY, f"a walk is new or gone: {REWRITE}"


@each_walk
def test_nothing_is_asked_that_a_gpu_refuses(name, found):
    assert found["faults"] == {}


@each_walk
def test_the_host_waits_only_where_it_must(name, found):
    unknown = {where: count for where, count in found["waits"].items() if where not in WAITS}
    assert not unknown, f"waits that nobody has allowed; avoid them, or say in WAITS why they must be: {unknown}"
    assert found["waits"] == FIGURES[name]["waits"], f"more: avoid them. Fewer: keep it so, by {REWRITE}"


@each_walk
def test_a_step_asks_for_no_more_than_it_did(name, found):
    """Launches, bytes, memory kept for the backward pass, and how often a decoding step is recorded."""
    for figure in RATCHETS:
        before, now = FIGURES[name][figure], found[figure]
        assert now <= before * SLACK, f"{figure} rose from {before:,} to {now:,}. If it buys something: {REWRITE}"
        if now * SLACK < before:
            warnings.warn(f"{name}: {figure} fell from {before:,} to {now:,}; keep it so, by {REWRITE}", stacklevel=1)
    samples = any("generate.py:step" in where for where in found["waits"])
    assert bool(found["recordings"]) == bool(found["replays"]) == samples


@each_walk
def test_products_are_in_half_precision_and_what_is_delicate_is_not(name, found):
    assert found["delicate"] == {}
    in_fp32, in_all = found["products"].get("float32", 0), sum(found["products"].values())
    if name == "train in fp32":
        assert in_fp32 == in_all > 0
    else:
        most = next((count for start, count in IN_FP32.items() if name.startswith(start)), 0)
        assert in_fp32 <= most and (in_fp32 <= in_all / 2 or name == "exports")


@walks([name for name in FIGURES if " rows, " in name])
def test_documents_of_a_row_are_one_call_of_the_kernel(name, found):
    kernel = "flash" if "7.5" not in name else "efficient"  # a T4 has no other
    one_document, many = f"_scaled_dot_product_{kernel}_attention", "_efficient_attention_forward"
    assert found["attention"].keys() == {many if "packed" in name else one_document}


def test_the_training_walks_hold_every_pair_of_settings():
    names = [name.split(", ") for name in FIGURES if ", checkpointing " in name]
    assert len(names) == 16
    for i in range(5):
        for j in range(i):
            values = [{name[axis] for name in names} for axis in (i, j)]
            assert len({(name[i], name[j]) for name in names}) == len(values[0]) * len(values[1])
