"""The decoder of Llama, Mistral, Qwen2, Qwen3 and Gemma 1-3: one file, families differ by fields of ModelConfig.

    ids ─ embed ─┬─ norm ─ attention (─ norm) ─┬─ + ─ norm ─ gated MLP (─ norm) ─┬─ + … norm ─ head ─ logits
                 └─────────────────────────────┘ └───────────────────────────────┘
                  residual stream, always fp32: in fp16 its few huge channels would overflow

Module names are those of Hugging Face's files, so that the weight map is the identity and a saved adapter's names are
a prefix away from PEFT's. Sources: Llama (arXiv:2302.13971), Mistral (arXiv:2310.06825), Qwen2 (arXiv:2407.10671),
Qwen3 (arXiv:2505.09388), Gemma (arXiv:2403.08295, 2408.00118, 2503.19786), RMSNorm (arXiv:1910.07467), gated MLPs
(arXiv:2002.05202); checked against transformers' modeling files in tests/parity.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import document_attention, document_positions, soft_cap
from model.cache import KVCache
from model.config import ModelConfig
from model.device import on_gpu
from model.linear import Linear
from model.norm import RMSNorm
from model.rope import rope_cos_sin, rotate
from model.virtual_tokens import VirtualTokens, drop, longer, prefix_attention, prepend

# Activation checkpointing: what the backward pass recomputes (arXiv:1604.06174).
CHECKPOINTING = (
    "none",
    "selective",  # the MLPs: half of the memory for a quarter of a forward pass
    "full",  # whole layers
    "offload",  # whole layers, whose inputs wait in the host's memory
)


class Shared(NamedTuple):
    """What the layers of one pass share: one for full attention, one for layers with a sliding window."""

    cos: torch.Tensor  # [B or 1, 1, T, D_head]
    sin: torch.Tensor
    lengths: list[int] | None  # of the row's documents
    cache: KVCache | None
    bias: torch.Tensor | None  # added to the scores against a cache, one token a row: 0 where it attends, else -inf
    checkpointing: str


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        # what shapes the scores: softmax(softcap(scale · q kᵀ)) over the keys inside the window
        self.layer, self.head_dim = layer, config.head_dim
        self.window = config.windows[layer]
        self.scale, self.softcap = config.query_scale, config.attn_logit_softcapping

        # grouped queries: fewer heads of keys and values than of queries
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = Linear(queries, config.hidden_size, bias=config.output_bias)

        # Qwen3, Gemma 3: a norm over each head bounds the scores
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, config.norm_offset)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, config.norm_offset)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x: torch.Tensor, shared: Shared, prefix: torch.Tensor | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]. With a cache and lengths: prompts to store; with a cache alone: one token a row.

        prefix  [2, H_kv, P, D]: keys and values that prefix tuning puts before those of every document
        """
        # project: q [B, T, H · D_head], k and v [B, T, H_kv · D_head]
        q, k, v = self.q_proj.forward_with(x, self.k_proj, self.v_proj)

        # split into heads, normalise each: q [B, H, T, D_head], k and v [B, H_kv, T, D_head]
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)) for y in (q, k, v))
        q, k, v = self.q_norm(q).transpose(1, 2), self.k_norm(k).transpose(1, 2), v.transpose(1, 2)

        # rotate by position, after which q · k depends on distances only
        q, k = rotate(q, shared.cos, shared.sin), rotate(k, shared.cos, shared.sin)

        rules = {"scale": self.scale, "softcap": self.softcap}
        if shared.cache is not None and shared.lengths is None:
            # decoding: one new token a row attends to what the cache holds
            out = shared.cache.attend(self.layer, q, k, v, bias=shared.bias, **rules)  # pyright: ignore[reportArgumentType]
        else:
            # training, or prompts to keep in the cache: inside the documents of the row, each after a learnt prefix
            if shared.cache is not None:
                shared.cache.fill(self.layer, k, v)
            attend = document_attention if prefix is None else partial(prefix_attention, prefix=prefix)
            out = attend(q, k, v, shared.lengths, causal=True, window=self.window, **rules)

        # join the heads: [B, H, T, D_head] -> [B, T, H · D_head] -> [B, T, D]
        return self.o_proj(out.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """down(act(gate(x)) · up(x)): SwiGLU, and GeGLU in Gemma."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # D -> I twice, and back once; I is several times D
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.activation = config.activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        # two products of the same input: [..., I] each
        gate, up = self.gate_proj.forward_with(x, self.up_proj)

        # one gates the other on its way back to D
        return self.down_proj.forward_gated(gate, up, self.activation)


class Layer(nn.Module):
    """Attention and MLP with a norm before each (Gemma 2 and 3: also after each), added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()

        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, config.rms_norm_eps, config.norm_offset)

        # post_attention_layernorm stands before the MLP; with post_norms, after the attention
        self.input_layernorm = norm()
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = norm()
        self.mlp = MLP(config)

        # Gemma 2 and 3
        self.has_post_norms = config.post_norms
        if config.post_norms:
            self.pre_feedforward_layernorm = norm()
            self.post_feedforward_layernorm = norm()

        # places of a bottleneck adapter (lora/bottleneck.py): on each branch, on the sum
        self.attention_adapter: nn.Module | None = None
        self.mlp_adapter: nn.Module | None = None
        self.layer_adapter: nn.Module | None = None

    def forward(self, x: torch.Tensor, shared: Shared, prefix: torch.Tensor | None) -> torch.Tensor:
        """x [B, T, D] fp32 -> [B, T, D] fp32."""
        # the sum is in fp32: the branch's half precision is promoted
        x = x + self._attention(x, shared, prefix)

        # "selective" recomputes the MLP, whose hidden activations are the largest
        if shared.checkpointing == "selective":
            x = x + checkpoint(self._mlp, x, use_reentrant=False)
        else:
            x = x + self._mlp(x)
        return through(self.layer_adapter, x)

    def _attention(self, x: torch.Tensor, shared: Shared, prefix: torch.Tensor | None) -> torch.Tensor:
        y = through(self.attention_adapter, self.self_attn(self.input_layernorm(x), shared, prefix))
        return self.post_attention_layernorm(y) if self.has_post_norms else y

    def _mlp(self, x: torch.Tensor) -> torch.Tensor:
        if self.has_post_norms:
            y = through(self.mlp_adapter, self.mlp(self.pre_feedforward_layernorm(x)))
            return self.post_feedforward_layernorm(y)
        return through(self.mlp_adapter, self.mlp(self.post_attention_layernorm(x)))


def through(adapter: nn.Module | None, x: torch.Tensor) -> torch.Tensor:
    """adapter(x), or x itself in an empty place: [B, T, D] -> [B, T, D]."""
    return x if adapter is None else adapter(x)


class Backbone(nn.Module):
    """Everything but the head: token ids in, last hidden states out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, config.norm_offset)
        self.checkpointing = "none"  # one of CHECKPOINTING
        # where an adapter may put virtual tokens: input vectors (lora/prompt.py), keys and values (lora/prefix.py)
        self.prompt: VirtualTokens | None = None
        self.prefix: VirtualTokens | None = None

    def hidden_states(
        self, input_ids: torch.Tensor, lengths: list[int] | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """The last layer's output after the final norm.

        input_ids  [B, T] int64; an adapter's virtual tokens are added to each document, and dropped again at the end
        lengths    of the row's documents, one after another (B = 1, they sum to T): positions restart at each, and none
                   attends to another. None: every row is one document or, with a cache, a row's next token (T = 1)
        cache      filled by a call with `lengths` (the prompts it has admitted), then read and extended token by token
        Returns    [B, T, D]
        """
        # the residual stream starts as the embeddings: [B, T, D] fp32
        x, texts = self.embedded(input_ids), lengths

        # virtual tokens before every text: as input vectors, or as keys and values; decoding finds them in the cache
        extended = cache if lengths is None else None  # by a decoding step
        prompt, prefix = (self.prompt, self.prefix) if extended is None else (None, None)
        if prompt is not None:
            x, lengths = prepend(prompt(), x, texts), longer(prompt.count, texts)
        prefixes = [None] * len(self.layers) if prefix is None else prefix()  # [2, H_kv, P, D_head] each

        # angles and masks, shared by all layers
        shared_by_window = self._shared(x, lengths, cache)

        # every layer adds to the stream
        for layer, window, kv in zip(self.layers, self.config.windows, prefixes, strict=True):
            shared = shared_by_window[window]
            if shared.checkpointing in ("full", "offload"):
                # keep only the layer's input, on the device or in the host's memory
                to_host = save_on_cpu(pin_memory=on_gpu(x)) if shared.checkpointing == "offload" else nullcontext()
                with to_host:
                    x = checkpoint(layer, x, shared, kv, use_reentrant=False)
            else:
                x = layer(x, shared, kv)

        # decoding: every layer has stored its token
        if extended is not None:
            extended.advance()
        return self.norm(x if prompt is None else drop(prompt.count, x, texts))

    def embedded(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The residual stream before the first layer: [...] int64 -> [..., D] fp32."""
        x = self.embed_tokens(input_ids).float()
        if self.config.embedding_scale == 1:
            return x
        # rounded to the weights' dtype, as Gemma was trained
        return x * torch.tensor(self.config.embedding_scale, dtype=self.embed_tokens.weight.dtype).item()

    def _shared(self, x, lengths, cache) -> dict[int | None, Shared]:
        """Angles and masks by window: once for layers with full attention (None), once for those with a window."""
        # each row's next token [B, 1], or each token of its document [1, T], after a learnt prefix
        if cache is not None and lengths is None:
            positions = cache.positions()[:, None]
            extents = positions + 1
        else:
            first = 0 if self.prefix is None else self.prefix.count
            positions, extents = document_positions(lengths or [x.shape[1]], first, x.device)

        # without gradients nothing is kept, so nothing needs to be recomputed
        checkpointing = self.checkpointing if torch.is_grad_enabled() else "none"

        shared_by_window = {}
        for window in set(self.config.windows):
            # Gemma 3's local layers rotate by a base of their own
            rope = self.config.rope if window is None else self.config.local_rope
            cos, sin = rope_cos_sin(positions, rope, extents)  # [B or 1, T, D_head]
            # decoding: which of the cached tokens a row sees
            bias = cache.bias(window) if cache is not None and lengths is None else None
            shared_by_window[window] = Shared(cos[:, None], sin[:, None], lengths, cache, bias, checkpointing)
        return shared_by_window


class Decoder(nn.Module):
    """A causal language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        # a tied head is the embedding itself and has no parameter of its own
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> torch.Tensor:
        """The output matrix [V, D]; the embedding itself when the two are tied."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def tie(self) -> None:
        """Replace an untied head by the embedding."""
        # `raw` too: it is what save_decoder writes
        raw = self.config.raw | {"tie_word_embeddings": True}
        self.config = self.model.config = replace(self.config, tie_word_embeddings=True, raw=raw)
        del self.lm_head

    @property
    def softcap(self) -> float | None:
        """Gemma 2's bound on the logits, which the loss must apply."""
        return self.config.final_logit_softcapping

    @property
    def max_tokens(self) -> int:
        """The longest text: the network's positions, of which an adapter's virtual tokens take some."""
        return self.config.max_tokens - self.virtual_tokens

    @property
    def virtual_tokens(self) -> int:
        """The adapter's virtual tokens before every text (model/virtual_tokens.py)."""
        return sum(part.count for part in (self.model.prompt, self.model.prefix) if part is not None)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.model.embed_tokens.weight.device

    @property
    def checkpointing(self) -> str:
        """What the backward pass recomputes, one of CHECKPOINTING; may be set."""
        return self.model.checkpointing

    @checkpointing.setter
    def checkpointing(self, value: str) -> None:
        if value not in CHECKPOINTING:
            raise ValueError(f"checkpointing must be one of {', '.join(CHECKPOINTING)}, not {value!r}")
        self.model.checkpointing = value

    def hidden_states(
        self, input_ids: torch.Tensor, lengths: list[int] | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """Backbone.hidden_states, the input of the head."""
        return self.model.hidden_states(input_ids, lengths, cache)

    def logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., V]. Training never calls it: causal_lm_loss computes logits in chunks."""
        logits = F.linear(hidden_states, self.head_weight)
        return logits if self.softcap is None else soft_cap(logits.float(), self.softcap)

    def forward(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """Logits [B, T, V] of every position. Training and sampling, which need few, use hidden_states."""
        return self.logits(self.hidden_states(input_ids, lengths))

    def new_cache(self, *, slots: int, lanes: int, rows: int, longest: tuple[int, int]) -> KVCache:
        """An empty cache for `rows` answers to `slots` prompts, at most `lanes` to each (model/cache.py).

        longest  most tokens of a prompt, and of an answer
        """
        config, prompt, prefix = self.config, self.model.prompt, self.model.prefix
        shape = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        # keys and values in the dtype of the weights; a learnt prefix is in it from the start
        places = {"slots": slots, "lanes": lanes, "rows": rows, "longest": longest}
        virtual = {"before": prompt.count if prompt else 0, "prefix": prefix() if prefix else ()}
        return KVCache(shape, **places, **virtual, dtype=self.model.norm.weight.dtype, device=self.device)
