"""A decoder's architecture, read from config.json; settings that are not implemented are refused by name.

Families differ by fields, not by subclasses. A key of config.json is one of four: a field below; a key implemented only
at some values (`only`); a key without influence here (INERT); any other key with a value other than null or false is
refused, since it may change the arithmetic and a wrong model is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common.console import UserError
from model.rope import Rope

# Bookkeeping, initialisation and settings of other tools: without influence on a forward pass.
INERT = {
    "_name_or_path", "_attn_implementation_autoset", "architectures", "attn_implementation", "auto_map",
    "cache_implementation", "chunk_size_feed_forward", "classifier_dropout", "dtype", "gradient_checkpointing",
    "id2label", "initializer_range", "is_llama_config", "label2id", "model_type", "output_attentions",
    "output_hidden_states", "problem_type", "return_dict", "torch_dtype", "torchscript", "transformers.js_config",
    "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "decoder_start_token_id",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What config.json leaves implicit in the architecture's name."""

    architecture: str  # transformers' class
    qkv_bias: bool = False  # always on q, k, v; attention_bias puts one on q, k, v and o
    qk_norm: bool = False  # RMSNorm over each head of q and k, before RoPE
    is_gemma: bool = False  # norm weights stored as w - 1, embeddings scaled by sqrt(D), GeGLU, tied by default
    post_norms: bool = False  # a norm after attention and after the MLP too
    fields: frozenset = frozenset()  # keys besides COMMON that are implemented


WINDOW = frozenset({"sliding_window", "layer_types"})
BIAS = frozenset({"attention_bias"})
SCALED = WINDOW | BIAS | {"query_pre_attn_scalar", "final_logit_softcapping"}
FAMILIES = {
    "llama": Family("LlamaForCausalLM", fields=BIAS | {"mlp_bias"}),
    "mistral": Family("MistralForCausalLM", fields=frozenset({"sliding_window"})),
    "qwen2": Family("Qwen2ForCausalLM", qkv_bias=True, fields=WINDOW | {"use_sliding_window", "max_window_layers"}),
    "qwen3": Family(
        "Qwen3ForCausalLM", qk_norm=True, fields=WINDOW | BIAS | {"use_sliding_window", "max_window_layers"}
    ),
    "gemma": Family("GemmaForCausalLM", is_gemma=True, fields=BIAS),
    "gemma2": Family(
        "Gemma2ForCausalLM", is_gemma=True, post_norms=True, fields=SCALED | {"attn_logit_softcapping"}
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", qk_norm=True, is_gemma=True, post_norms=True,
        fields=SCALED | {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"},
    ),
}  # fmt: skip
COMMON = frozenset({
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "max_position_embeddings", "rope_theta", "rope_parameters", "rope_scaling", "rms_norm_eps",
    "tie_word_embeddings",
})  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """A decoder: pre-norm, RMSNorm, rotary positions, grouped-query attention, gated MLP."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope: Rope
    local_rope: Rope  # of sliding-window layers: Gemma 3 gives them another base
    windows: tuple[int | None, ...]  # per layer: a token sees itself and the window - 1 before it; None: all
    query_scale: float  # what q · k is multiplied by
    attn_logit_softcapping: float | None  # c tanh(q · k / c)
    final_logit_softcapping: float | None
    embedding_scale: float
    rms_norm_eps: float
    norm_offset: float  # 1 where the file stores a norm's weight minus 1
    qk_norm: bool
    post_norms: bool
    activation: str  # "silu" or "gelu_tanh"
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]
    raw: dict = field(repr=False, compare=False)  # config.json as read, for saving

    @property
    def max_tokens(self) -> int:
        """The longest text: max_position_embeddings, which only dynamic RoPE extends."""
        stretch = self.rope.factor if self.rope.scaling == "dynamic" else 1
        return int(self.max_position_embeddings * stretch)

    @classmethod
    def from_dict(cls, raw: dict) -> ModelConfig:
        """UserError for an unsupported architecture, a missing field, or a key that is not implemented."""
        name = raw.get("model_type")
        if name not in FAMILIES:
            raise UserError(f"architecture {name!r} is not supported; supported are {', '.join(FAMILIES)}")
        family = FAMILIES[name]

        # refuse what is not implemented
        gelu = {"gelu_pytorch_tanh", "gelu"} if name == "gemma" else {"gelu_pytorch_tanh"}  # "gelu" in old files
        only = {
            "hidden_act": gelu if family.is_gemma else {"silu"},
            "hidden_activation": {"gelu_pytorch_tanh"},
            "attention_dropout": {0.0},
            "pretraining_tp": {1},
            "is_decoder": {True},
        }
        refuse_unknown(raw, fields=COMMON | family.fields, only=only)

        # heads: as many of keys as of queries, and D / H wide, unless the file says otherwise
        hidden_size, heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
        key_heads = size(raw, "num_key_value_heads", heads)
        head_dim = size(raw, "head_dim", 256 if family.is_gemma else hidden_size // heads)
        if heads % key_heads:
            raise UserError(f"config.json: {heads} query heads cannot share {key_heads} key heads evenly")

        # everything else, by the file or by the family
        rope, local_rope = _ropes(raw, head_dim)
        bias = bool(raw.get("attention_bias", False))
        return cls(
            vocab_size=size(raw, "vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=size(raw, "intermediate_size"),
            num_hidden_layers=size(raw, "num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            head_dim=head_dim,
            max_position_embeddings=size(raw, "max_position_embeddings"),
            rope=rope,
            local_rope=local_rope,
            windows=_windows(raw),
            query_scale=(raw.get("query_pre_attn_scalar") or head_dim) ** -0.5,
            attn_logit_softcapping=raw.get("attn_logit_softcapping"),
            final_logit_softcapping=raw.get("final_logit_softcapping"),
            embedding_scale=hidden_size**0.5 if family.is_gemma else 1.0,
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            norm_offset=1.0 if family.is_gemma else 0.0,
            qk_norm=family.qk_norm,
            post_norms=family.post_norms,
            activation="gelu_tanh" if family.is_gemma else "silu",
            qkv_bias=bias or family.qkv_bias,
            output_bias=bias,
            mlp_bias=bool(raw.get("mlp_bias", False)),
            tie_word_embeddings=bool(raw.get("tie_word_embeddings", family.is_gemma)),
            eos_token_ids=_as_ids(raw.get("eos_token_id")),
            raw=raw,
        )


def required(raw: dict, key: str):
    """The value of a required key."""
    if raw.get(key) is None:
        raise UserError(f"config.json: {key} is missing")
    return raw[key]


def size(raw: dict, key: str, default: int | None = None) -> int:
    """A positive integer, required unless there is a default."""
    value = required(raw, key) if default is None or raw.get(key) is not None else default
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UserError(f"config.json: {key}={value!r} is not a positive whole number")
    return value


def refuse_unknown(raw: dict, *, fields: set[str] | frozenset[str], only: dict[str, set]) -> None:
    """UserError for an unknown key, or one at a value that is not implemented (`only`)."""
    for key, value in raw.items():
        if key in only:
            if value is not None and not any(value == known for known in only[key]):  # it may be a list
                known = " or ".join(map(repr, sorted(only[key])))
                raise UserError(f"config.json: {key}={value!r} is not implemented, only {known} is")
        elif key not in fields and key not in INERT and value is not None and value is not False:
            raise UserError(
                f"config.json: {key}={value!r} is unknown and might change the arithmetic; "
                "if you are sure that it does not, add it to INERT in model/config.py"
            )


def _as_ids(value) -> tuple[int, ...]:
    """eos_token_id is an int, a list of ints, or null."""
    return () if value is None else tuple(value) if isinstance(value, list) else (value,)


def _ropes(raw: dict, head_dim: int) -> tuple[Rope, Rope]:
    """RoPE of the full-attention layers and of the sliding-window layers.

    Older files: rope_theta, rope_scaling, and Gemma 3's rope_local_base_freq. Newer: rope_parameters, by layer type in
    Gemma 3.
    """
    is_gemma3 = raw["model_type"] == "gemma3_text"

    # older files: bases, which transformers' configuration classes default to these values
    theta = raw.get("rope_theta") or (1e6 if is_gemma3 else 1e4)
    local_theta = (raw.get("rope_local_base_freq") or 1e4) if is_gemma3 else theta

    # newer files, whose tables Rope.from_dict reads
    new = raw.get("rope_parameters") or {}
    full = new.get("full_attention", {} if is_gemma3 else new) | (raw.get("rope_scaling") or {})
    local = new.get("sliding_attention", {}) if is_gemma3 else full
    positions = size(raw, "max_position_embeddings")
    return (
        Rope.from_dict(full, head_dim=head_dim, theta=theta, max_positions=positions),
        Rope.from_dict(local, head_dim=head_dim, theta=local_theta, max_positions=positions),
    )


def _windows(raw: dict) -> tuple[int | None, ...]:
    """The sliding window of every layer (arXiv:2310.06825, section 2)."""
    # how wide: null, and Qwen's false switch, mean that there is none
    family, layers, window = raw["model_type"], size(raw, "num_hidden_layers"), raw.get("sliding_window")
    if family in ("qwen2", "qwen3") and not raw.get("use_sliding_window"):
        window = None
    if family in ("mistral", "gemma2", "gemma3_text") and "sliding_window" not in raw:
        raise UserError("config.json: sliding_window is missing")

    # which layers have it: listed in newer files, a rule of the family in older ones
    pattern = raw.get("sliding_window_pattern") or raw.get("_sliding_window_pattern") or 6
    is_local = {
        "mistral": lambda layer: True,
        "qwen2": lambda layer: layer >= raw.get("max_window_layers", 28),
        "qwen3": lambda layer: layer >= raw.get("max_window_layers", 28),
        "gemma2": lambda layer: layer % 2 == 0,
        "gemma3_text": lambda layer: (layer + 1) % pattern != 0,
    }.get(family, lambda layer: False)
    kinds = raw.get("layer_types") or ["sliding_attention" if is_local(i) else "full_attention" for i in range(layers)]
    unknown = set(kinds) - {"sliding_attention", "full_attention"}
    if unknown or len(kinds) != layers:
        named = ", ".join(sorted(unknown)) or f"{len(kinds)} layers, not {layers}"
        raise UserError(f"config.json: layer_types names {named}")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
