from __future__ import annotations

import pytest
import torch

from common.console import UserError
from lora.adapter import linears
from lora.frozen_weight import QuantisedLinear, put_nf4
from lora.inject import DECODER_TARGETS, inject
from model import load_decoder
from training.describe import describe_model
from training.setup import load_for_training, prepare
from training.shared_options import DecoderOptions


def options(tiny_folder, **given) -> DecoderOptions:
    return DecoderOptions(model=str(tiny_folder), out="run", **given)


def test_a_4_bit_base_is_for_adapters(tiny_folder):
    here = (torch.float32, torch.device("cpu"))
    assert linears(load_for_training(options(tiny_folder, quantize="nf4"), *here)).keys() == set(
        linears(load_for_training(options(tiny_folder), *here))
    )
    kinds = {type(layer) for layer in linears(load_for_training(options(tiny_folder, quantize="nf4"), *here)).values()}
    assert kinds == {QuantisedLinear}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"checkpointing": "offload"}, "without a GPU, give full"),
        ({"patience": 2, "validate_every": 0}, "--validate-every"),
    ],
)
def test_incompatible_options_are_refused(tiny, tokenizer, tiny_folder, given, said):
    with pytest.raises(UserError, match=said):
        prepare(tiny, tokenizer, options(tiny_folder, **given), torch.device("cpu"), torch.float32)


def test_a_network_in_nf4_has_as_many_parameters_as_a_dense_one(tiny, tiny_folder):
    said = []
    for network in (tiny, load_decoder(str(tiny_folder), put=put_nf4)):
        inject(network, r=4, alpha=8, targets=DECODER_TARGETS)
        said.append(describe_model(options(tiny_folder, lr=1e-3), network, torch.float32))
    assert said[1] == said[0].replace("float32", "float32, 0.1 M of them in NF4")
