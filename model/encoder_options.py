"""Options of a command that loads an encoder, for what the model's own files may leave open."""

from __future__ import annotations

from dataclasses import dataclass, fields

from common.options import option
from model.encoder import POOLINGS

VECTORS = "how the encoder makes a vector"


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Overrides of what the model's files say."""

    pooling: str | None = option(
        None, "pooling of the token vectors (default: from the model's files)", VECTORS, choices=POOLINGS
    )
    query_prefix: str | None = option(
        None, "text before a query (default: from the model's files)", VECTORS, metavar="TEXT"
    )
    passage_prefix: str | None = option(
        None, "text before a code (default: from the model's files)", VECTORS, metavar="TEXT"
    )
    max_length: int | None = option(
        None, "tokens of a text; longer ones are cut (default: from the model's files)", VECTORS
    )

    def overrides(self) -> dict:
        """These options as keyword arguments of load_encoder."""
        return {field.name: getattr(self, field.name) for field in fields(EncoderOptions)}
