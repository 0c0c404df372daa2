"""What a network looks like, read from config.json; what we cannot compute exactly is refused by name.

Families differ by fields, not by subclasses. A key of config.json falls into one of four groups: a field below; a key
that we implement only at one value (ONLY); a key that changes nothing here (INERT); anything else with a value other
than null or false is refused, for it may change the arithmetic and a wrong model is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from model.console import UserError

FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}

# Bookkeeping, initialisation and settings of other tools: no influence on what a forward pass computes.
INERT = {
    "_name_or_path", "architectures", "auto_map", "chunk_size_feed_forward", "classifier_dropout", "dtype",
    "gradient_checkpointing", "id2label", "initializer_range", "label2id", "max_window_layers", "model_type",
    "output_attentions", "output_hidden_states", "return_dict", "torch_dtype", "torchscript", "transformers_version",
    "unsloth_fixed", "unsloth_version", "use_cache", "problem_type",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id",
}  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """A decoder: pre-norm, RMSNorm, rotary positions, grouped-query attention, SwiGLU (Llama, Qwen2)."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    qkv_bias: bool  # Qwen2 has one on q, k and v; Llama's attention_bias adds one on o too
    output_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    raw: dict = field(repr=False, compare=False)  # config.json as it was read, to be saved again

    @classmethod
    def from_dict(cls, raw: dict) -> ModelConfig:
        """Raises UserError for another architecture, a missing field, or a key whose arithmetic is not implemented."""
        family = raw.get("model_type")
        if family not in FAMILIES:
            raise UserError(f"architecture {family!r} is not supported; supported are {', '.join(FAMILIES)}")
        rope_theta = _rope_theta(raw)
        heads = required(raw, "num_attention_heads")
        hidden_size = required(raw, "hidden_size")
        bias = bool(raw.get("attention_bias", False))
        refuse_unknown(
            raw,
            fields={
                "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                "num_key_value_heads", "head_dim", "max_position_embeddings", "rope_theta", "rope_parameters",
                "rope_scaling", "rms_norm_eps", "attention_bias", "mlp_bias", "tie_word_embeddings",
            }
            # Qwen2 carries a window that use_sliding_window=false switches off
            | ({"sliding_window", "layer_types"} if family == "qwen2" else set()),
            only={
                "hidden_act": "silu",
                "attention_dropout": 0.0,
                "pretraining_tp": 1,
                "use_sliding_window": False,
                "is_decoder": True,
            },
        )  # fmt: skip
        if any(kind != "full_attention" for kind in raw.get("layer_types") or []):
            raise UserError("config.json: layer_types other than full_attention is not implemented")
        return cls(
            vocab_size=required(raw, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=required(raw, "intermediate_size"),
            num_hidden_layers=required(raw, "num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=raw.get("num_key_value_heads") or heads,
            head_dim=raw.get("head_dim") or hidden_size // heads,
            max_position_embeddings=required(raw, "max_position_embeddings"),
            rope_theta=rope_theta,
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            qkv_bias=bias or family == "qwen2",
            output_bias=bias,
            mlp_bias=bool(raw.get("mlp_bias", False)),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
            eos_token_ids=_as_ids(raw.get("eos_token_id")),
            raw=raw,
        )


def required(raw: dict, key: str):
    """The value of a key that must be there."""
    if raw.get(key) is None:
        raise UserError(f"config.json: {key} is missing")
    return raw[key]


def _as_ids(value) -> tuple[int, ...]:
    """eos_token_id is an int, a list of ints, or null."""
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def _rope_theta(raw: dict) -> float:
    """The RoPE base, from where old (rope_theta, rope_scaling) and new (rope_parameters) files keep it."""
    for key in ("rope_scaling", "rope_parameters"):
        scaling = raw.get(key) or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise UserError(f"config.json: {key} of type {kind!r} is not implemented")
    return float((raw.get("rope_parameters") or {}).get("rope_theta") or raw.get("rope_theta") or 10000.0)


def refuse_unknown(raw: dict, *, fields: set[str], only: dict) -> None:
    """UserError for a key that is not known, or known at another value than `only` allows."""
    for key, value in raw.items():
        if key in only:
            if value is not None and value != only[key]:
                raise UserError(f"config.json: {key}={value!r} is not implemented, only {only[key]!r} is")
        elif key not in fields and key not in INERT and value not in (None, False):
            raise UserError(
                f"config.json: {key}={value!r} is not known here and might change the arithmetic; "
                "if you are sure that it does not, add it to INERT in model/config.py"
            )
