"""The switch between plain and fast forms, and when a fast form steps aside."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

import pytest
import torch

import lora.fast
import model.loss
from lora.frozen_weight import multiply
from lora.layer import LoRALinear
from model import attention, fast, linear, norm, rope
from model.fast import attention as fast_attention
from model.fast import cpu_linear, cross_entropy
from model.fast import norm as fast_norm
from model.fast import rope as fast_rope

ROOT = Path(__file__).resolve().parents[3]
PAIRS = {  # each fast form, with the plain functions that it was written for
    cross_entropy.chunked_cross_entropy: [model.loss.causal_lm_loss],
    fast_norm.fused_rms_norm: [norm.rms_norm],
    fast_rope.in_place_rotate: [rope.rotate],
    fast_attention.fused_attention: [attention.document_attention, attention.visible, attention.soft_cap],
    cpu_linear.onednn_linear: [linear.linear],
    lora.fast.joint_lora: [LoRALinear.forward, linear.Projection.forward_with],
    lora.fast.gated_lora: [LoRALinear.forward, linear.Projection.forward_gated, linear.activate],
    lora.fast.quantised_multiply: [multiply],
}


@pytest.mark.parametrize("form", PAIRS, ids=lambda form: form.function.__name__)
def test_every_plain_form_is_the_code_that_its_fast_form_was_written_for(form):
    plain = [getattr(function, "__wrapped__", function) for function in PAIRS[form]]
    now = tuple(map(fast.fingerprint, plain))
    record = ", ".join(f'"{value}"' for value in now)
    assert form.fingerprints == now and "" not in now, (
        f"{plain[0].__qualname__} was edited. If {form.function.__name__} still computes the same (its tests say so), "
        f"record: @fast.written_for({record})"
    )


def test_every_fast_form_of_the_project_is_known_here():
    found = [
        name
        for folder in ("model", "lora", "data", "training", "eval")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"^@fast\.written_for\(.*\)\ndef (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(found) == sorted(form.function.__name__ for form in PAIRS)


def test_both_have_one_label_that_is_ignored():
    assert cross_entropy.IGNORE == model.loss.IGNORE


# ------------------------------------------------------------------------------------------------------------- a module

PLAIN = '''
from __future__ import annotations
from model import fast

@fast.written_for(WRITTEN_FOR)
def fast_double(x):
    return "fast", 2 * x

def helper(x):
    return x

@fast.has_twin(fast_double, helper)
def double(x: int = 0) -> tuple:
    """Twice x."""
    return "plain", helper(x) + x  # a comment
'''


def load(folder, name, text):
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def record(tmp_path):
    """The source above with its fingerprints recorded."""
    first = load(tmp_path, "unrecorded", PLAIN.replace("WRITTEN_FOR", '"", ""'))
    prints = [fast.fingerprint(function) for function in (first.double.__wrapped__, first.helper)]
    return PLAIN.replace("WRITTEN_FOR", ", ".join(map(repr, prints)))


def test_fast_forms_run_unless_they_are_off(record, tmp_path):
    module = load(tmp_path, "recorded", record)
    assert module.double(3) == ("fast", 6) and module.double.__wrapped__(3) == ("plain", 6)
    with fast.off():
        assert module.double(3) == ("plain", 6) and not fast.is_on()
        with fast.off():
            pass
        assert not fast.is_on()
    assert module.double(3) == ("fast", 6) and fast.is_on()


def test_off_stays_off_when_called(monkeypatch):
    monkeypatch.setattr(fast, "_enabled", True)
    fast.off()
    assert not fast.is_on()


def test_comments_docstrings_annotations_and_layout_may_change(record, tmp_path, capsys):
    text = record.replace("# a comment", "# another").replace("Twice x.", "Doubled.").replace("x: int = 0", "x=0")
    text = text.replace('return "plain", helper(x) + x', 'return (\n        "plain",\n        helper(x) + x,\n    )')
    assert load(tmp_path, "commented", text).double(3) == ("fast", 6)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("helper(x) + x", "helper(x) + x + 0", "double"),
        ("x: int = 0", "x: int = 1", "double"),
        ("    return x\n", "    return 1 * x\n", "helper"),
    ],
)
def test_an_edited_function_runs_and_one_line_says_so_once(record, tmp_path, capsys, old, new, name):
    assert record.count(old) == 1
    fast._said.clear()
    module = load(tmp_path, "edited", record.replace(old, new))
    assert module.double(3) == module.double(3) == ("plain", 6)
    expected = f"fast     edited.{name} is not the code that fast_double was written for: fast_double steps aside\n"
    assert capsys.readouterr().err == expected


def test_a_replaced_function_runs_and_may_call_what_it_replaces(record, tmp_path, capsys):
    module = load(tmp_path, "replaced", record)
    imported_before = module.double

    def mine(x):
        return "mine", *imported_before(x)

    module.double = mine
    assert imported_before(3) == module.double(3) == ("mine", "fast", 6)
    with fast.off():
        assert imported_before(3) == ("mine", "plain", 6)
    assert "mine is not the code that fast_double was written for" in capsys.readouterr().err
    module.double = functools.partial(imported_before, 4)
    assert imported_before() == ("fast", 8)
    module.double = imported_before
    module.helper = lambda x: 10 * x
    assert imported_before(3) == ("plain", 33)


def test_a_function_without_source_is_not_the_one_recorded():
    namespace = {}
    exec("def forward(self, x):\n    return x", namespace)
    assert fast.fingerprint(namespace["forward"]) == fast.fingerprint(torch.nn.functional.linear) == ""
    assert not lora.fast.quantised_multiply.fits(namespace["forward"])


def test_an_adapters_subclass_and_a_single_layers_forward_count(capsys):
    class Doubled(LoRALinear):
        def forward(self, x):
            return 2 * super().forward(x)

    x, base = torch.randn(2, 3, 8), torch.nn.Linear(8, 4)
    plain, doubled = LoRALinear(base, r=2, alpha=4), Doubled(base, r=2, alpha=4)
    doubled.load_state_dict(plain.state_dict())
    one, two, other = plain.forward_with(x, doubled, base)
    assert torch.equal(two, 2 * plain(x)) and torch.equal(one, other) and torch.equal(one, base(x))
    assert (
        "Doubled.forward is not the code that joint_lora" not in capsys.readouterr().err
    )  # base has no adapter at all
    assert torch.equal(plain.forward_with(x, doubled)[1], 2 * plain(x))
    assert "Doubled.forward is not the code that joint_lora" in capsys.readouterr().err
    plain.forward = lambda x: base(x) + 1
    assert torch.equal(plain.forward_gated(x, x, "silu"), base(torch.nn.functional.silu(x) * x) + 1)
