"""Train tiny decoders in every configuration, as one process or as one of several, and save the results to a file.

python tests/training/one_or_many.py MODEL OUT      (test_parallel.py starts it, and compares the files)
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import save_file

from data.masking import Example
from data.packing import to_batch
from lora.adapter import trainable
from lora.frozen_weight import put_nf4
from lora.inject import DECODER_TARGETS, inject
from model import load_decoder
from model.decoder import Decoder
from model.loss import IGNORE, causal_lm_loss, supervised_tokens
from model.weights import set_parameter
from tests.methods import METHODS, put_in, stir
from training import parallel
from training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from training.optim import adamw, make_schedule
from training.overflow import keep_in_fp32
from training.precision import Precision
from training.sharding import is_part, own_parts, sharded, whole
from training.validation import EarlyStopping

CPU = torch.device("cpu")
ROWS = (3, 1, 4)  # of each step's window: they divide by two, they do not, and one process gets none
WAYS = {
    "lora": {},
    "lora, sharded": {"shard": True},
    "lora, sharded, recomputed": {"shard": True, "checkpointing": "full"},
    "lora over bf16, sharded": {"shard": True, "dtype": torch.bfloat16, "fp32_modules": ["model.layers.0.mlp"]},
    "lora over nf4, sharded": {"shard": True, "put": put_nf4},
    "dora of rank 1, sharded": {"shard": True, "r": 1, "dora": True},  # of one row a process has nothing
    "full": {"method": "full"},
    "full, sharded": {"method": "full", "shard": True},
    "full, sharded, recomputed": {"method": "full", "shard": True, "checkpointing": "selective"},
    "ia3": {"method": "ia3"},
    "ia3, sharded": {"method": "ia3", "shard": True},
    "bitfit over nf4, sharded": {"method": "bitfit", "shard": True, "put": put_nf4},
    "bitfit of norms, sharded": {"method": "bitfit of norms", "shard": True, "checkpointing": "full"},
    "houlsby": {"method": "houlsby"},
    "pfeiffer over bf16, sharded": {"method": "pfeiffer", "shard": True, "dtype": torch.bfloat16},
    "prefix by an MLP, sharded": {"method": "prefix by an MLP", "shard": True, "checkpointing": "full"},
    "prompt": {"method": "prompt"},
}


def windows() -> list[list[list[Example]]]:
    """Packed rows of unequal length, with unequal numbers of supervised tokens."""
    draw = random.Random(0)

    def example() -> Example:
        ids = [draw.randrange(300) for _ in range(draw.randrange(4, 20))]
        return Example(ids, [token if draw.random() < 0.6 else IGNORE for token in ids])

    return [[[example() for _ in range(draw.randrange(1, 4))] for _ in range(rows)] for rows in ROWS]


def network(
    folder: str, *, method="lora", dtype=torch.float32, put=set_parameter, r=4, dora=False, dropout=0.0
) -> Decoder:
    torch.manual_seed(0)
    decoder = load_decoder(folder, dtype=dtype, put=put)
    if method in METHODS and method != "lora":
        put_in(decoder, method)
        stir(decoder, size=0.02)
    elif method == "lora":
        inject(decoder, r=r, alpha=2 * r, targets=DECODER_TARGETS, dora=dora, dropout=dropout)
        with torch.no_grad():
            for name, parameter in trainable(decoder):
                if name.endswith("lora_B.weight"):  # zeros would leave A without a gradient
                    parameter.normal_(std=0.02)
    return decoder.train()


class Learner:
    """A script's `learn`: its setup, and its loop in parts."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.precision = decoder, Precision(CPU, torch.float32)
        self.optimizer = adamw(decoder, lr=1e-2, weight_decay=0.01)
        for group in self.optimizer.param_groups:
            group["eps"] = 1e-3  # else it divides a gradient of almost nothing by itself, and its last digit tells
        names = {id(parameter): name for name, parameter in trainable(decoder)}
        self.names = [names[id(p)] for group in self.optimizer.param_groups for p in group["params"]]
        self.learning = own_parts(self.optimizer)
        self.schedule = make_schedule(self.optimizer, "cosine", steps=8, warmup=0.0)
        self.state = (decoder, self.optimizer, self.schedule, self.precision)

    def gradients(self, rows: list[list[Example]], spoil: Callable[[], None] | None = None) -> float:
        """Leaves the gradients of a window, spoilt before they are summed; returns its loss."""
        window = [to_batch(row, CPU) for row in parallel.share(rows)]
        supervised = parallel.total(sum(supervised_tokens(batch.labels) for batch in window))
        losses = 0.0
        for batch in window:
            hidden_states = self.decoder.hidden_states(batch.input_ids, batch.lengths)
            loss = causal_lm_loss(hidden_states, self.decoder.head_weight, batch.labels) / supervised
            self.precision.backward(loss)
            losses += loss.item()
        if spoil:
            spoil()
        parallel.sum_gradients(self.learning)
        return parallel.total(losses)

    def step(self) -> tuple[bool, float]:
        stepped, norm = self.precision.step(self.optimizer, self.learning, max_norm=0.5)
        if stepped:
            self.schedule.step()
        return stepped, norm

    def whole(self, what) -> dict[str, torch.Tensor]:
        """what(parameter) of every parameter that learns, in full."""
        parts = zip(self.names, self.learning, strict=True)
        return {name: whole(what(part).detach().clone(), part) for name, part in parts}


def spread(decoder: Decoder, shard: bool):
    return sharded(decoder) if shard and parallel.world() > 1 else nullcontext()


def learn(folder: str, *, shard=False, checkpointing="none", fp32_modules=(), **options) -> dict[str, torch.Tensor]:
    """Losses, norms, the gradients of the first step, and the weights after three steps."""
    decoder = network(folder, **options)
    decoder.checkpointing = checkpointing
    keep_in_fp32(decoder, fp32_modules, Precision(CPU, torch.float32))
    with spread(decoder, shard):
        learner, result, rows = Learner(decoder), {}, []
        for window in windows():
            loss = learner.gradients(window)
            if not rows:
                result |= {f"gradient.{name}": value for name, value in learner.whole(lambda p: p.grad).items()}
            rows.append([loss, learner.step()[1]])
    result |= {f"weight.{name}": parameter.detach() for name, parameter in decoder.named_parameters()}
    return result | {"losses and norms": torch.tensor(rows, dtype=torch.float64)}


def resume(folder: str, checkpoints: Path, *, shard: bool) -> dict[str, torch.Tensor]:
    """The difference between three steps with dropout, and one step, a checkpoint, and two resumed steps."""
    decoder = network(folder, dropout=0.5)
    with spread(decoder, shard):
        learner = Learner(decoder)
        for done, window in enumerate(windows()):
            if done == 1:
                save_checkpoint(checkpoints, 1, *learner.state)
            learner.gradients(window)
            learner.step()
    other = network(folder, dropout=0.5)
    with spread(other, shard):
        learner = Learner(other)
        assert load_checkpoint(latest_checkpoint(checkpoints), *learner.state) == 1
        for window in windows()[1:]:
            learner.gradients(window)
            learner.step()
    pairs = zip(trainable(decoder), trainable(other), strict=True)
    return {f"difference.{name}": (one - two).detach().abs().max() for (name, one), (_, two) in pairs}


def best(folder: str, out: Path) -> dict[str, torch.Tensor]:
    """The difference between the restored weights and those after step 1, the better of two."""
    decoder = network(folder)
    with spread(decoder, shard=True):
        learner, kept = Learner(decoder), EarlyStopping(out / "best.safetensors", decoder, 1, [])
        states = []
        for step, window in enumerate(windows()[:2], 1):
            learner.gradients(window)
            learner.step()
            states.append([part.detach().clone() for part in learner.learning])
            kept.update(step, float(step))
        kept.restore()
        restored = max((a - b).abs().max() for a, b in zip(states[0], learner.learning, strict=True) if a.numel())
        moved = max((a - b).abs().max() for a, b in zip(*states, strict=True) if a.numel())
    return {"restored": restored.detach(), "moved": moved}


def overflow(folder: str) -> dict[str, torch.Tensor]:
    """An overflow in the last rank's shard alone: by rank, whether it stepped, the loss scale, and how far it moved."""
    decoder = network(folder)
    with spread(decoder, shard=True):
        learner = Learner(decoder)
        learner.precision.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=8.0)

        def spoil() -> None:
            part = learner.learning[0]
            gradient = part.divided.grad.to_local() if is_part(part) else part.grad
            if parallel.rank() == parallel.world() - 1:
                gradient[0, 0] = torch.inf

        before = [part.detach().clone() for part in learner.learning]
        learner.gradients(windows()[0], spoil)
        stepped, _ = learner.step()
        moved = max((a - b).abs().max().item() for a, b in zip(before, learner.learning, strict=True))
        found = torch.tensor([float(stepped), learner.precision.scaler.get_scale(), moved])
    return {"stepped, scale, moved": torch.stack(parallel.of_every_rank(found))}


def join() -> dict[str, torch.Tensor]:
    """Vectors, and gradients of a loss over all their pairs; in one of the batches a process has no row."""
    torch.manual_seed(1)
    layer, rows, result = torch.nn.Linear(3, 2), torch.randn(5, 3), {}
    for count in (1, 5):
        vectors = parallel.joined(lambda own: layer(torch.stack(own)), list(rows[:count]))
        ((vectors @ vectors.T).exp() * torch.arange(1, count**2 + 1).view(count, -1)).sum().backward()
        parallel.sum_gradients(list(layer.parameters()))
        result |= {f"vectors of {count}": vectors.detach(), f"gradient of {count}": layer.weight.grad.clone()}
        layer.zero_grad()
    return result


def main(folder: str, out: str) -> None:
    parallel.start("cpu")
    first = network(folder)
    if parallel.rank() > 0:
        with torch.no_grad():
            next(trainable(first))[1].add_(1)
    results: dict[str, dict] = {}
    with parallel.together(first, seed=0):
        results["of every rank"] = {
            "first weight": torch.stack(parallel.of_every_rank(next(trainable(first))[1].detach())),
            "drawn": torch.stack(parallel.of_every_rank(torch.rand(4))),
            "total": torch.tensor([parallel.total(1.5), parallel.total(torch.tensor(2)).item()]),
        }
        for way, options in WAYS.items():
            results[way] = learn(folder, **options)
        for shard in (False, True):
            name = "resumed, sharded" if shard else "resumed"
            results[name] = resume(folder, Path(out) / name.replace(", ", "-"), shard=shard)
        results |= {"best": best(folder, Path(out)), "overflow": overflow(folder), "joined": join()}
    tensors = {f"{way}/{name}": value.contiguous() for way, result in results.items() for name, value in result.items()}
    save_file(tensors, Path(out) / "results.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
