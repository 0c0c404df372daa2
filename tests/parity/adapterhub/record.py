"""Record what AdapterHub's library `adapters` computes, for tests/parity/test_bottleneck.py.

    pip install --no-deps --target AH adapters==1.3.0 transformers==4.57.6 "huggingface_hub<1" "tokenizers<=0.23"
    PYTHONPATH=AH python tests/parity/adapterhub/record.py tests/parity/adapterhub           # writes the folders here
    PYTHONPATH=AH python tests/parity/adapterhub/record.py MODEL ADAPTER                     # prints logits as JSON

It needs an older transformers than the other parity tests, so its results are kept here: for each family a tiny model,
and for each placement the adapter that it saved, with the logits, the gradients and the answer that it computed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import adapters
import torch
from adapters import AdapterModelInterface
from adapters.wrappers.interfaces import CUSTOM_INTERFACES
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

IDS = torch.tensor([[3, 17, 9, 4, 4, 21, 11, 5, 8, 2, 19]])
PLACEMENTS = {"houlsby": "double_seq_bn", "pfeiffer": "seq_bn"}
SHAPE = {
    "vocab_size": 24, "hidden_size": 12, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 6, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {"head_dim": None},
    "qwen3": {"tie_word_embeddings": True},
    "gemma": {"pad_token_id": 0},
    "gemma2": {"pad_token_id": 0, "query_pre_attn_scalar": 6, "sliding_window": 4},
}
# The library has no interface for the first Gemma; its layers are built as Qwen2's are.
INTERFACES = CUSTOM_INTERFACES | {"gemma": CUSTOM_INTERFACES["qwen2"]}


def prepared(folder: Path):
    """The model of a folder, ready for adapters."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    interface: AdapterModelInterface | None = INTERFACES.get(model.config.model_type)
    adapters.init(model, interface=interface)
    return model.eval()


def write_model(family: str, folder: Path) -> None:
    """A tiny model with weights that all matter."""
    shape = {name: value for name, value in (SHAPE | FAMILIES[family]).items() if value is not None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = name.endswith("norm.weight")
            parameter.copy_(0.3 * torch.randn(parameter.shape) + (is_norm and not family.startswith("gemma")))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def record(folder: Path, placement: str, out: Path) -> None:
    """An adapter as after some training, saved by the library, and what the model with it computes."""
    model = prepared(folder)
    model.add_adapter("task", config=adapters.AdapterConfig.load(PLACEMENTS[placement], reduction_factor=5))
    model.train_adapter("task")
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for parameter in trained.values():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    model.save_adapter(str(out), "task", use_safetensors=True)
    for name in ("head_config.json", "model_head.safetensors"):
        (out / name).unlink(missing_ok=True)

    # logits, the gradients of a weighted sum of them, and a greedy answer
    logits = model(IDS).logits
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (logits * direction).sum().backward()
    # without a cache: the library's Llama leaves the earlier tokens' out, and then answers something else
    answer = model.generate(IDS, do_sample=False, max_new_tokens=8, eos_token_id=None, pad_token_id=0, use_cache=False)
    results = {"ids": IDS, "logits": logits.detach(), "direction": direction, "answer": answer[0, IDS.shape[1] :]}
    results |= {f"gradient.{name}": parameter.grad for name, parameter in trained.items()}
    save_file({name: tensor.contiguous() for name, tensor in results.items()}, out / "computed.safetensors")


def main() -> None:
    """Record everything, or print the logits of one adapter."""
    if len(sys.argv) == 3:
        model = prepared(Path(sys.argv[1]))
        model.load_adapter(sys.argv[2], set_active=True, use_safetensors=True)
        print(json.dumps(model(IDS).logits.tolist()))
        return
    for family in FAMILIES:
        folder = Path(sys.argv[1]) / family
        write_model(family, folder)
        # in Gemma 2 the library's other placement applies the last layer's norm in all layers
        for placement in ["houlsby"] if family == "gemma2" else PLACEMENTS:
            record(folder, placement, folder / placement)


if __name__ == "__main__":
    main()
