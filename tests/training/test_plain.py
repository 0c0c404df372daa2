"""--plain: a run by the textbook forms alone has the losses of a run by the fast ones."""

from __future__ import annotations

import json

import pytest

import train_cpt
import train_embed
import train_sft
from common.console import UserError
from lora.fast import gated_lora, joint_lora
from model import fast
from model.fast.attention import fused_attention
from model.fast.cross_entropy import chunked_cross_entropy
from model.fast.norm import fused_rms_norm
from model.fast.rope import in_place_rotate

# fp32: orders of summation alone. bf16: a rounding is up to 2^-9 of a number, and a loss, a mean over many tokens,
# differs by a few of these. AdamW divides by a gradient's size: noise in small ones moves weights by up to --lr.
BOUNDS = {"fp32": 1e-5, "bf16": 2**-7}
MODULE = '"""Adds {n}."""\n\n\ndef add_{n}(a, names={n}):\n    """Return a + {n}."""\n    return [a + {n}] * names\n'


@pytest.fixture(autouse=True)
def fast_again(monkeypatch):
    monkeypatch.setattr(fast, "_enabled", True)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(out, **options) -> list[str]:
    shared = {"out": out, "r": 4, "lr": 1e-3, "checkpoint-every": 0} | options
    return [str(part) for name, value in shared.items() for part in ("--" + name.replace("_", "-"), value)]


@pytest.fixture
def sft(tiny_folder, tmp_path):
    pairs = [{"instruction": f"Add {n}.", "output": f"return a + {n}\n" * (1 + n % 9)} for n in range(12)]
    data = write(tmp_path / "sft.jsonl", pairs)
    given = {"model": tiny_folder, "data": data, "max_length": 128, "step_tokens": 128}
    return lambda out, *flags, **options: train_sft.main([*command(out, **given, **options), *flags])


@pytest.fixture
def cpt(tiny_folder, tmp_path):
    source = tmp_path / "small"
    source.mkdir()
    for n in range(6):
        (source / f"module_{n}.py").write_text("\n\n".join(MODULE.format(n=100 * n + i) for i in range(n + 3)))
    given = {"model": tiny_folder, "corpus": source, "row_tokens": 128, "step_tokens": 128, "validate_every": 2}
    return lambda out, *flags, **options: train_cpt.main([*command(out, **given, **options), *flags])


@pytest.fixture
def embed(reference_encoder, tmp_path):
    model = tmp_path / "encoder"
    model.mkdir()
    for file in reference_encoder[1].rglob("*"):
        if file.is_file():
            (model / file.relative_to(reference_encoder[1])).parent.mkdir(exist_ok=True)
            (model / file.relative_to(reference_encoder[1])).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())  # dropout draws other numbers in each form
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    pairs = [{"id": str(n), "query": f"where is {chr(97 + n)}", "code": f"def {chr(97 + n)} pass"} for n in range(20)]
    given = {"model": model, "data": write(tmp_path / "embed.jsonl", pairs), "batch": 5, "epochs": 2}
    given["method"] = "lora"
    return lambda out, *flags, **options: train_embed.main([*command(out, **given, **options), *flags])


def losses(folder) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row[name] for row in rows for name in ("loss", "validation_loss") if name in row]


@pytest.fixture
def fast_calls(monkeypatch) -> list[str]:
    """The names of the fast forms that are called."""
    calls = []
    for form in (chunked_cross_entropy, fused_rms_norm, in_place_rotate, fused_attention, joint_lora, gated_lora):
        function = form.function

        def counted(*args, function=function, **kwargs):
            calls.append(function.__name__)
            return function(*args, **kwargs)

        monkeypatch.setattr(form, "function", counted)
    return calls


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("track", ["sft", "cpt", "embed"])
def test_a_plain_run_has_the_losses_of_a_fast_one(request, tmp_path, fast_calls, track, dtype):
    train = request.getfixturevalue(track)
    train(tmp_path / "fast", dtype=dtype)
    assert len(set(fast_calls)) == (1 if track == "embed" else 6)
    fast_calls.clear()
    train(tmp_path / "plain", "--plain", dtype=dtype)
    assert not fast_calls
    found, expected = losses(tmp_path / "plain"), losses(tmp_path / "fast")
    assert len(set(expected)) == len(expected) > 5  # it does train
    assert found == pytest.approx(expected, rel=BOUNDS[dtype], abs=0)


def test_a_run_is_resumed_with_the_forms_that_it_began_with(sft, tmp_path):
    sft(tmp_path / "run", "--plain", epochs=1, checkpoint_every=1)
    with pytest.raises(UserError, match="cannot resume with --plain False"):
        sft(tmp_path / "run", "--resume", epochs=1, checkpoint_every=1)
