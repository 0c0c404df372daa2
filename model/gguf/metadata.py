"""llama.cpp's metadata against Hugging Face's config.json, both directions.

Source: llama.cpp's conversion scripts and src/models. Llama 3's RoPE scaling is a tensor of divisors, one per
frequency; linear and YaRN scaling are metadata.
"""

from __future__ import annotations

import json
from math import log, pi

import torch

from common.console import UserError
from model.config import FAMILIES, ModelConfig
from model.rope import Rope

# llama.cpp's architecture -> config.json's model_type. Mistral is stored as llama.
MODEL_TYPES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
ROPE_FREQS = "rope_freqs.weight"
LLAMA3_SCALING = "rope.scaling.llama3"  # the settings behind rope_freqs, as JSON; llama.cpp ignores it


def architecture_of(config: ModelConfig) -> str:
    """llama.cpp's name of a model's family. UserError if it has none."""
    family = config.raw["model_type"]
    for architecture, model_type in MODEL_TYPES.items():
        if family in (model_type, "mistral" if architecture == "llama" else model_type):
            return architecture
    raise UserError(f"{family} models cannot be written as GGUF here; {', '.join(MODEL_TYPES)} and mistral can")


def rope_divisors(rope: Rope) -> torch.Tensor:
    """Llama 3's scaling as llama.cpp stores it: [head_dim / 2] fp32, the divisor of each frequency."""
    frequencies = rope.theta ** (-torch.arange(0, rope.head_dim, 2, dtype=torch.float64) / rope.head_dim)
    turns = rope.trained_positions * frequencies / (2 * pi)
    keep = ((turns - rope.slow_turns) / (rope.fast_turns - rope.slow_turns)).clamp(0, 1)  # 1: as trained
    return (1 / (keep + (1 - keep) / rope.factor)).float()


def metadata_of(config: ModelConfig) -> dict[str, object]:
    """llama.cpp's metadata of a model, keys without the architecture prefix. UserError if it cannot run this model."""
    _check_shape(config)
    metadata = {
        "context_length": exact_context(config),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope.theta,
        "vocab_size": config.vocab_size,
        **_scaling_metadata(config.rope),
    }
    if _alternates(config):
        metadata["attention.sliding_window"] = max(window or 0 for window in config.windows)
        metadata["attention.sliding_window_pattern"] = _window_pattern(config.windows)
        metadata["rope.freq_base_swa"] = config.local_rope.theta
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if (cap := getattr(config, name)) is not None:
            metadata[name] = float(cap)
    return metadata


def _check_shape(config: ModelConfig) -> None:
    """UserError for settings that transformers supports and llama.cpp's graph of the family does not."""
    family, heads = config.raw["model_type"], config.num_attention_heads
    known = config.head_dim
    if _alternates(config):
        known = _attention_scalar(config.num_hidden_layers, config.hidden_size, heads, config.head_dim)
    if abs(config.query_scale * known**0.5 - 1) > 1e-6:
        raise UserError(f"query_pre_attn_scalar={config.query_scale**-2:g}: llama.cpp supports only {known} here")
    if family == "qwen2" and heads * config.head_dim != config.hidden_size:
        raise UserError(
            f"{heads} heads of {config.head_dim}: for qwen2 llama.cpp requires hidden_size {config.hidden_size}"
        )
    if config.output_bias and family not in ("llama", "mistral"):
        raise UserError(f"attention_bias: llama.cpp has no bias on the attention output in {family}")
    if family in ("gemma", "gemma2") and not config.tie_word_embeddings:
        raise UserError(f"tie_word_embeddings=false: llama.cpp always ties the head of {family}")


def exact_context(config: ModelConfig) -> int:
    """The context up to which llama.cpp is exact: it has windows only for Gemma, and no dynamic RoPE."""
    windows = [] if _alternates(config) else [window for window in config.windows if window is not None]
    return min([config.max_position_embeddings, *windows])


def _alternates(config: ModelConfig) -> bool:
    """Whether llama.cpp supports sliding-window layers between full ones in this family."""
    return config.raw["model_type"] in ("gemma2", "gemma3_text")


def _scaling_metadata(rope: Rope) -> dict[str, object]:
    if rope.scaling in ("default", "dynamic"):  # dynamic changes nothing up to max_position_embeddings
        return {}
    settings = {
        "factor": rope.factor,
        "low_freq_factor": rope.slow_turns,
        "high_freq_factor": rope.fast_turns,
        "original_max_position_embeddings": rope.trained_positions,
    }
    if rope.scaling == "llama3":
        return {LLAMA3_SCALING: json.dumps(settings)}
    if rope.scaling == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": rope.factor}
    if (rope.fast_turns, rope.slow_turns, rope.truncate) != (32, 1, True):  # llama.cpp has no such settings
        raise UserError("RoPE scaling yarn: llama.cpp supports only beta_fast=32, beta_slow=1, truncate=true")
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": rope.factor,
        "rope.scaling.original_context_length": rope.trained_positions,
        # llama.cpp always multiplies by 1 + 0.1 ln(factor)
        "rope.scaling.attn_factor": rope.attention_factor / (1 + 0.1 * log(rope.factor)),
    }


def _window_pattern(windows: tuple[int | None, ...]) -> int:
    """The period of full-attention layers, which is all that llama.cpp can express."""
    period = windows.index(None) + 1 if None in windows else len(windows) + 1
    expected = ["full_attention" if window is None else "sliding_attention" for window in windows]
    if layer_types(len(windows), period) != expected:
        raise UserError("config.json: layer_types without a period cannot be written as GGUF")
    return period


def layer_types(layers: int, period: int) -> list[str]:
    """config.json's layer_types: the last of every `period` layers has full attention."""
    return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(layers)]


def _attention_scalar(layers: int, hidden_size: int, heads: int, head_dim: int) -> int:
    """llama.cpp's query_pre_attn_scalar: it recognises Gemma's 27B models by their number of layers."""
    return hidden_size // heads if layers in (46, 62) else head_dim


def config_of(metadata: dict, names: set[str], vocab_size: int, divisors: torch.Tensor | None) -> dict:
    """config.json of a stored model: the inverse of `metadata_of`.

    names     its stored tensors, which reveal biases and an untied head
    divisors  its rope_freqs tensor, if any
    KeyError for a missing entry, ValueError for an impossible one, UserError for an unsupported RoPE scaling.
    """
    architecture = metadata["general.architecture"]
    if metadata[f"{architecture}.block_count"] > len(names):
        raise ValueError("more blocks than tensors")

    # what every family has
    get = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    model_type = MODEL_TYPES[architecture]
    heads, hidden_size = get["attention.head_count"], get["embedding_length"]
    head_dim = get.get("attention.key_length", hidden_size // heads)
    theta = float(get.get("rope.freq_base", 10000.0))
    config = {
        "model_type": model_type,
        "architectures": [FAMILIES[model_type].architecture],
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": get["feed_forward_length"],
        "num_hidden_layers": get["block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": get.get("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": get["context_length"],
        "rope_theta": theta,
        "rope_scaling": _scaling_of(get, theta, head_dim, divisors),
        "rms_norm_eps": float(f"{get['attention.layer_norm_rms_epsilon']:.6g}"),  # fp32: 9.99999975e-06
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
    }

    # what differs: activation, biases, Gemma's windows and caps
    if model_type.startswith("gemma"):
        config["hidden_activation"] = "gelu_pytorch_tanh"
    else:
        config["hidden_act"] = "silu"
    if model_type != "qwen2":
        config["attention_bias"] = "blk.0.attn_q.bias" in names
    if model_type == "llama":
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in names
    if model_type in ("gemma2", "gemma3_text"):
        period = get.get("attention.sliding_window_pattern", 2 if model_type == "gemma2" else 6)
        config |= {
            "sliding_window": get.get("attention.sliding_window", 4096),
            "layer_types": layer_types(get["block_count"], period),
            "query_pre_attn_scalar": _attention_scalar(get["block_count"], hidden_size, heads, head_dim),
            "attn_logit_softcapping": get.get("attn_logit_softcapping"),
            "final_logit_softcapping": get.get("final_logit_softcapping"),
        }
    if model_type == "gemma3_text":
        config["rope_local_base_freq"] = float(get.get("rope.freq_base_swa", 10000.0))
    return config


def _scaling_of(get: dict, theta: float, head_dim: int, divisors: torch.Tensor | None) -> dict | None:
    kind = get.get("rope.scaling.type", "none")
    # llama3: as we stored it, or inferred with the settings of all of Llama 3's models; it must give these divisors
    if divisors is not None:
        usual = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
        inferred = {"factor": divisors.max().item(), **usual}
        scaling = {"rope_type": "llama3", **(json.loads(get[LLAMA3_SCALING]) if LLAMA3_SCALING in get else inferred)}
        rope = Rope.from_dict(scaling, head_dim=head_dim, theta=theta, max_positions=get["context_length"])
        expected = rope_divisors(rope)
        if divisors.shape != expected.shape or not torch.allclose(divisors, expected, rtol=1e-4):
            raise UserError(f"{ROPE_FREQS} is not Llama 3's RoPE scaling; other scaling tensors are not supported")
        return scaling
    if kind == "none":
        return None

    # linear, yarn: metadata
    if kind not in ("linear", "yarn"):
        raise UserError(f"RoPE scaling {kind!r} is not supported")
    scaling = {"rope_type": kind, "factor": get["rope.scaling.factor"]}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = get["rope.scaling.original_context_length"]
        if "rope.scaling.attn_factor" in get:
            scaling["attention_factor"] = get["rope.scaling.attn_factor"] * (1 + 0.1 * log(scaling["factor"]))
    return scaling
