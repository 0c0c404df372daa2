"""An encoder's architecture, read from config.json; unimplemented settings are refused by name (see config.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_type_hints

from common.console import UserError
from model.config import refuse_unknown, required, size
from model.rope import Rope

BERT_FAMILIES = ("bert", "roberta", "xlm-roberta")

# Without influence on the hidden states: heads, initialisation, special tokens, leftovers of other tools.
# tie_word_embeddings concerns a language-model head, which an encoder does not have.
ENCODER_INERT = {
    "tie_word_embeddings", "tokenizer_class", "cls_token_id", "mask_token_id", "output_past",
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
    "pooler_type", "classifier_activation", "classifier_bias", "classifier_pooling", "decoder_bias",
    "deterministic_flash_attn", "initializer_cutoff_factor", "reference_compile", "repad_logits_with_grad",
    "sparse_pred_ignore_index", "sparse_prediction",
}  # fmt: skip


@dataclass(frozen=True)
class BertConfig:
    """BERT and RoBERTa: learnt absolute positions, post-norm, GELU."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int  # rows of the position table
    first_position: int  # of a text's first token; RoBERTa reserves the rows up to pad_token_id for padding
    type_vocab_size: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    raw: dict = field(repr=False, compare=False)  # config.json as read, for saving

    @property
    def max_tokens(self) -> int:
        """The longest text: 512 of XLM-R's 514 rows."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def from_dict(cls, raw: dict) -> BertConfig:
        """UserError for an unsupported architecture, a missing field, or a key that is not implemented."""
        family = raw.get("model_type")
        if family not in BERT_FAMILIES:
            raise UserError(f"encoder architecture {family!r} is not supported; {', '.join(BERT_FAMILIES)} are")
        names = set(cls.__dataclass_fields__) - {"raw", "first_position"}
        only = {"hidden_act": {"gelu"}, "position_embedding_type": {"absolute"}, "is_decoder": {False}}
        refuse_unknown(raw, fields=names | ENCODER_INERT, only=only)
        # RoBERTa numbers positions from the row after padding's
        first = 0 if family == "bert" else required(raw, "pad_token_id") + 1
        head_width(raw)
        return cls(**typed(cls, raw, names), first_position=first, raw=raw)


@dataclass(frozen=True)
class ModernBertConfig:
    """ModernBERT: rotary positions, pre-norm, GeGLU, most layers with a window."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    norm_eps: float
    norm_bias: bool
    attention_bias: bool
    mlp_bias: bool
    attention_dropout: float
    embedding_dropout: float
    mlp_dropout: float
    windows: tuple[int | None, ...]  # per layer: tokens seen to each side of a token; None: all
    rope: Rope
    local_rope: Rope  # of sliding-window layers
    raw: dict = field(repr=False, compare=False)

    @property
    def max_tokens(self) -> int:
        """The longest text."""
        return self.max_position_embeddings

    @classmethod
    def from_dict(cls, raw: dict) -> ModernBertConfig:
        """UserError for a missing field, or a key that is not implemented.

        The layers with a window and the two RoPE bases come from layer_types and rope_parameters, or in older files
        from global_attn_every_n_layers, global_rope_theta and local_rope_theta.
        """
        computed = {"windows", "rope", "local_rope", "raw"}
        names = set(cls.__dataclass_fields__) - computed
        read = {"layer_types", "global_attn_every_n_layers", "local_attention", "rope_parameters", "global_rope_theta"}
        # published files have layer_norm_eps and position_embedding_type, but ModernBERT uses norm_eps and RoPE
        unused = {"layer_norm_eps", "position_embedding_type"}
        refuse_unknown(
            raw,
            fields=names | read | {"local_rope_theta"} | unused | ENCODER_INERT,
            only={"hidden_activation": {"gelu"}, "is_decoder": {False}},
        )
        head_dim = head_width(raw)
        return cls(
            **typed(cls, raw, names),
            windows=_windows(raw),
            rope=Rope(head_dim, _theta(raw, "full_attention", "global_rope_theta")),
            local_rope=Rope(head_dim, _theta(raw, "sliding_attention", "local_rope_theta")),
            raw=raw,
        )


def typed(cls: type, raw: dict, names: set[str]) -> dict:
    """The values of these fields, checked against their declared types; UserError for any other type."""
    # a field's annotation selects its check
    kinds, read = get_type_hints(cls), {int: size, float: _number, bool: _switch}
    return {name: read[kinds[name]](raw, name) for name in sorted(names)}


def head_width(raw: dict) -> int:
    """The head dimension; UserError if the heads do not divide hidden_size."""
    width, heads = size(raw, "hidden_size"), size(raw, "num_attention_heads")
    if width % heads:
        raise UserError(f"config.json: hidden_size={width} is not a multiple of num_attention_heads={heads}")
    return width // heads


def _windows(raw: dict) -> tuple[int | None, ...]:
    """local_attention counts both sides: 128 means 64 to the left, 64 to the right, and the token itself."""
    layers, window = size(raw, "num_hidden_layers"), size(raw, "local_attention") // 2
    kinds = raw.get("layer_types")
    if not isinstance(kinds, list | None):
        raise UserError(f"config.json: layer_types={kinds!r} is not a list")
    # older files: every n-th layer, from the first on, has no window
    if kinds is None:
        every = size(raw, "global_attn_every_n_layers")
        kinds = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    unknown = set(map(str, kinds)) - {"sliding_attention", "full_attention"}
    if unknown or len(kinds) != layers:
        raise UserError(
            f"config.json: layer_types names {', '.join(sorted(unknown)) or len(kinds)} for {layers} layers"
        )
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def _theta(raw: dict, kind: str, old_key: str) -> float:
    """The RoPE base of one kind of layers."""
    by_kind = raw.get("rope_parameters") or {}
    rope = by_kind.get(kind, {}) if isinstance(by_kind, dict) else by_kind
    if not isinstance(rope, dict):
        raise UserError(f"config.json: rope_parameters={by_kind!r} is not a table of tables")
    if not rope:
        return _number(raw, old_key)
    # no scaling is implemented here
    if others := {key: value for key, value in rope.items() if key not in ("rope_type", "rope_theta")}:
        raise UserError(f"config.json: rope_parameters.{kind} has {', '.join(others)}, which is not implemented")
    if rope.get("rope_type", "default") != "default":
        raise UserError(f"config.json: rope_parameters.{kind} of type {rope['rope_type']!r} is not implemented")
    return _number(rope, "rope_theta")


def _number(raw: dict, key: str) -> float:
    value = required(raw, key)
    if type(value) not in (int, float):
        raise UserError(f"config.json: {key}={value!r} is not a number")
    return float(value)


def _switch(raw: dict, key: str) -> bool:
    value = required(raw, key)
    if not isinstance(value, bool):
        raise UserError(f"config.json: {key}={value!r} is not true or false")
    return value
