"""llama.cpp's tensors against Hugging Face's, both directions: names, row order, offsets of norms.

Source: llama.cpp's conversion scripts and src/models.
- Llama's q and k rows are interleaved, (x_0, x_h, x_1, x_{h+1}, …) for half a head h: its RoPE rotates neighbours.
  Without reversing this SmolLM2's perplexity on library code is about 360, not 10. All other families keep HF's order.
- Gemma's norms multiply by 1 + w: HF stores w, llama.cpp 1 + w.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
SANDWICH = BLOCK | {  # Gemma 2 and 3 normalise both input and output of each half of a layer
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


class Heads(NamedTuple):
    """Numbers of query heads and of key heads."""

    queries: int
    keys: int


def tensor_name(architecture: str, stored: str) -> str:
    """Hugging Face's name of a stored tensor. KeyError if there is none."""
    if stored in TENSORS:
        return TENSORS[stored]
    # blk.3.attn_q.weight
    block, layer, part, kind = stored.split(".") if stored.count(".") == 3 else [""] * 4
    if block != "blk" or not layer.isdigit():
        raise KeyError(stored)
    return f"model.layers.{layer}.{_parts(architecture)[part]}.{kind}"


def stored_name(architecture: str, name: str) -> str:
    """The name that llama.cpp looks for: the inverse of `tensor_name`."""
    for stored, ours in TENSORS.items():
        if ours == name:
            return stored
    # model.layers.3.self_attn.q_proj.weight
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{next(k for k, v in _parts(architecture).items() if v == part)}.{kind}"


def _parts(architecture: str) -> dict[str, str]:
    return SANDWICH if architecture in ("gemma2", "gemma3") else BLOCK


def from_stored(architecture: str, stored: str, tensor: torch.Tensor, heads: Heads) -> torch.Tensor:
    """A stored tensor in Hugging Face's layout."""
    if (count := _interleaved_heads(architecture, stored, heads)) is not None:
        return half_split_rows(tensor, count)
    return tensor - 1 if _is_shifted(architecture, stored) else tensor


def to_stored(architecture: str, stored: str, tensor: torch.Tensor, heads: Heads) -> torch.Tensor:
    """The inverse of `from_stored`."""
    if (count := _interleaved_heads(architecture, stored, heads)) is not None:
        # rows (0, 1, … h-1, h, …) to (0, h, 1, h+1, …)
        return tensor.unflatten(0, (count, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()
    return tensor + 1 if _is_shifted(architecture, stored) else tensor


def half_split_rows(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k from (0, h, 1, h+1, …) back to (0, 1, … h-1, h, …), h = half a head."""
    return tensor.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _interleaved_heads(architecture: str, stored: str, heads: Heads) -> int | None:
    if architecture != "llama":
        return None
    return {"attn_q": heads.queries, "attn_k": heads.keys}.get(stored.split(".")[-2])


def _is_shifted(architecture: str, stored: str) -> bool:
    return architecture.startswith("gemma") and stored.endswith("norm.weight")
