"""What tests begin with does not depend on the tests before."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from tests.conftest import _llama


def test_the_tiny_model_has_the_same_weights_in_every_process(tiny_folder):
    """A fixture of the session is made before the first test, whichever that is."""
    torch.manual_seed(0)
    expected = _llama(tied=True).state_dict()
    stored = load_file(tiny_folder / "model.safetensors")
    assert len(stored) > 20 and all(torch.equal(weight, expected[name]) for name, weight in stored.items())
