"""Tensors that are kept may be asked for by sampling first, and are then good enough to train with."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
FOLDERS = ("model", "lora", "data", "training", "eval")
ARGUMENTS = {  # of every function whose tensors are kept
    "model.fast.attention._borders": ((3, 4), CPU),
    "model.fast.cpu_attention._later": (5, CPU),
    "lora.nf4._pairs": (CPU,),
    "training.adam8bit.dynamic_tree": (True, CPU),
}


def kept_functions():
    """(module.function, its decorators, what it returns) of every function in the core with a decorator that caches."""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text if "cache" in text else "")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(d) for d in node.decorator_list):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                named_tuples = {c.name for c in tree.body if isinstance(c, ast.ClassDef) and "Tensor" in ast.unparse(c)}
                returned = ast.unparse(node.returns) if node.returns else "nothing that is said"
                is_tensors = "Tensor" in returned or returned in named_tuples
                yield f"{module}.{node.name}", [ast.unparse(d) for d in node.decorator_list], is_tensors


def test_every_function_whose_tensors_are_kept_is_known_here():
    tensors = {name: decorators for name, decorators, is_tensors in kept_functions() if is_tensors}
    assert tensors.keys() == ARGUMENTS.keys()
    for name, decorators in tensors.items():
        assert len(decorators) == 1 and decorators[0].startswith("cached_tensors("), name


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_sampling_asked_for_first_can_be_saved_for_backward(name):
    module, _, function = name.rpartition(".")
    kept = getattr(importlib.import_module(module), function)
    kept.cache_clear()
    with torch.inference_mode():
        first = kept(*ARGUMENTS[name])
    assert kept(*ARGUMENTS[name]) is first  # still kept
    tensors = [first] if isinstance(first, torch.Tensor) else first
    for tensor in tensors:
        assert not tensor.is_inference()
        weight = torch.ones(tensor.shape, requires_grad=True)
        (weight * tensor).sum().backward()  # saves the tensor
        assert torch.equal(weight.grad, tensor.float())
