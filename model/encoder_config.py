"""What an encoder looks like, read from config.json; what is not implemented is refused by name (see config.py)."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.config import refuse_unknown, required
from model.console import UserError


@dataclass(frozen=True)
class EncoderConfig:
    """A BERT encoder: learnt absolute positions, post-norm, GELU."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    raw: dict = field(repr=False, compare=False)

    @classmethod
    def from_dict(cls, raw: dict) -> EncoderConfig:
        """Raises UserError for another architecture, a missing field, or a key whose arithmetic is not implemented."""
        if raw.get("model_type") != "bert":
            raise UserError(f"encoder architecture {raw.get('model_type')!r} is not supported; supported is bert")
        names = {name for name in cls.__dataclass_fields__ if name != "raw"}
        only = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
        # tie_word_embeddings speaks of a language-model head, which an encoder does not have
        refuse_unknown(raw, fields=names | {"tie_word_embeddings"}, only=only)
        return cls(**{name: required(raw, name) for name in names}, raw=raw)
