"""Bottleneck adapters against AdapterHub's library `adapters`: what it computed is in the folder adapterhub/ here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from common.console import UserError
from lora.adapter import adapter_in_use, trainable
from lora.adapter_file import load_adapter, save_adapter
from lora.bottleneck_file import INERT
from model import Stop, generate, load_decoder
from tests.methods import put_in, stir

HERE = Path(__file__).parent / "adapterhub"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma")
CASES = [(family, placement) for family in FAMILIES for placement in ("houlsby", "pfeiffer")]
CASES += [("gemma2", "houlsby")]  # before the norm that ends a branch


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    """(the family's decoder with their adapter, what they computed with it, their folder)."""
    family, placement = request.param
    folder = HERE / family / placement
    decoder = load_decoder(str(HERE / family))
    load_adapter(decoder, folder)
    return decoder, load_file(folder / "computed.safetensors"), folder


def test_theirs_loads_here_with_the_same_logits_and_answer(case):
    decoder, computed, folder = case
    found = decoder(computed["ids"])
    assert_close(found, computed["logits"], atol=2e-5, rtol=1e-5)
    assert (found - load_decoder(str(folder.parent))(computed["ids"])).abs().max() > 0.05  # the adapter does something
    prompt, answer = computed["ids"][0].tolist(), computed["answer"].tolist()
    assert generate(decoder, [prompt], Stop(max_new_tokens=len(answer), ids=()))[0][0] == answer


def test_every_gradient_is_theirs(case):
    decoder, computed, _ = case
    decoder.requires_grad_(False)
    for module in adapter_in_use(decoder).values():
        module.requires_grad_(True)
    (decoder(computed["ids"]) * computed["direction"]).sum().backward()
    found = {_their_name(name): parameter.grad for name, parameter in trainable(decoder)}
    expected = {n.removeprefix("gradient."): gradient for n, gradient in computed.items() if n.startswith("gradient.")}
    assert found.keys() == expected.keys()
    assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all(gradient.abs().max() > 1e-3 for gradient in found.values())


def _their_name(name: str) -> str:
    for ours, theirs in (
        (".attention_adapter.", ".attention_adapters.adapters.task."),
        (".mlp_adapter.", ".output_adapters.adapters.task."),
        (".layer_adapter.", ".output_adapters.adapters.task."),
        (".down.", ".adapter_down.0."),
        (".up.", ".adapter_up."),
    ):
        name = name.replace(ours, theirs)
    return name


def test_what_is_written_here_is_what_they_wrote(case, tmp_path):
    decoder, _, folder = case
    save_adapter(decoder, tmp_path / "again", base_model="tiny", task_type="CAUSAL_LM")
    ours, theirs = (load_file(path / "adapter.safetensors") for path in (tmp_path / "again", folder))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    # every setting that is written has their value; what is not written is at their default
    ours, theirs = (json.loads((path / "adapter_config.json").read_text()) for path in (tmp_path / "again", folder))
    assert {key: ours[key] for key in ours.keys() & theirs.keys() - {"config", "model_name"}}.items() <= theirs.items()
    assert ours["config"] | {"init_weights": "bert"} == {key: theirs["config"][key] for key in ours["config"]}
    omitted = {key: value for key, value in theirs["config"].items() if key not in ours["config"]}
    assert {key for key, value in omitted.items() if value not in (None, False, [], 0)} <= INERT


CHANGES = {
    "the placement": ({"mh_adapter": True, "original_ln_before": True}, "mh_adapter.* is not implemented"),
    "parallel": ({"is_parallel": True}, "is_parallel=True is not implemented"),
    "a norm": ({"ln_after": True}, "ln_after=True is not implemented"),
    "a gate": ({"use_gating": True}, "use_gating=True is not implemented"),
    "a scale": ({"scaling": 4.0}, r"scaling=4\.0 is not implemented"),
    "a learnt scale": ({"scaling": "learned"}, "scaling='learned' is not implemented"),
    "invertible": ({"inv_adapter": "nice"}, "inv_adapter='nice' is not implemented"),
    "compacter": ({"phm_layer": True}, "phm_layer=True is not implemented"),
    "layers left out": ({"leave_out": [0]}, r"leave_out=\[0\] is not implemented"),
    "sizes by layer": ({"reduction_factor": {"default": 16}}, "reduction_factor=.*only one for all layers"),
    "the activation": ({"non_linearity": "mish"}, "non_linearity='mish' is not one of relu, "),
    "the residual": ({"original_ln_after": False}, "original_ln_after=False is not implemented"),
    "a later version's": ({"of_a_later_version": 1}, "of_a_later_version=1 is not implemented"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_setting_that_is_not_implemented_is_refused_by_name(tiny, tmp_path, change):
    put_in(tiny, "houlsby")
    save_adapter(tiny, tmp_path / "a", base_model="tiny", task_type="CAUSAL_LM")
    file = tmp_path / "a" / "adapter_config.json"
    config = json.loads(file.read_text())
    changed, said = CHANGES[change]
    file.write_text(json.dumps(config | {"config": config["config"] | changed}))
    with pytest.raises(UserError, match=said) as refusal:
        load_adapter(tiny, tmp_path / "a")
    assert "\n" not in str(refusal.value)


def test_a_pickled_adapter_of_theirs_is_refused(tiny, tmp_path):
    put_in(tiny, "pfeiffer")
    save_adapter(tiny, tmp_path / "a", base_model="tiny", task_type="CAUSAL_LM")
    (tmp_path / "a" / "adapter.safetensors").rename(tmp_path / "a" / "pytorch_adapter.bin")
    with pytest.raises(UserError, match=r"pytorch_adapter\.bin is a pickle, which is never loaded"):
        load_adapter(tiny, tmp_path / "a")


@pytest.mark.slow
@pytest.mark.skipif("TRITUNE_ADAPTERHUB" not in os.environ, reason="TRITUNE_ADAPTERHUB names no folder with `adapters`")
@pytest.mark.parametrize(("family", "placement"), CASES)
def test_ours_loads_there_with_the_same_logits(tmp_path, family, placement):
    decoder = load_decoder(str(HERE / family))
    put_in(decoder, placement)
    stir(decoder, size=0.3)
    save_adapter(decoder, tmp_path / "a", base_model="tiny", task_type="CAUSAL_LM")
    found = subprocess.run(
        [sys.executable, HERE / "record.py", HERE / family, tmp_path / "a"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": os.environ["TRITUNE_ADAPTERHUB"]},
    )  # fmt: skip
    ids = load_file(HERE / family / placement / "computed.safetensors")["ids"]
    theirs = torch.tensor(json.loads(found.stdout.splitlines()[-1]))
    assert_close(decoder(ids), theirs, atol=2e-5, rtol=1e-5)
    assert (theirs - load_decoder(str(HERE / family))(ids)).abs().max() > 0.05
