from __future__ import annotations

import pytest
import torch

from lora.frozen import put_nf4
from lora.inject import DECODER_TARGETS, inject
from model import load_decoder
from model.console import UserError
from model.weights import put
from training.adapter import how_to_put
from training.finish import describe_model


def test_quantize_is_for_adapters_and_knows_nf4_alone():
    assert how_to_put(None, full=True) is put and how_to_put("nf4", full=False) is put_nf4
    with pytest.raises(UserError, match="cannot learn"):
        how_to_put("nf4", full=True)
    with pytest.raises(UserError, match="--quantize int8: not known; give nf4"):
        how_to_put("int8", full=False)


def test_a_network_in_nf4_has_as_many_parameters_as_a_dense_one(tiny, tiny_folder):
    said = []
    for network in (tiny, load_decoder(str(tiny_folder), put=put_nf4)):
        inject(network, r=4, alpha=8, targets=DECODER_TARGETS)
        said.append(describe_model("tiny", network, torch.float32))
    assert said[1] == said[0].replace("float32", "float32, 0.1 M of them in NF4")
