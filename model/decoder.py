"""The decoder of Llama and Qwen2: one file, families differ by fields of ModelConfig.

    ids ─ embed ─┬─ norm ─ attention ─┬─ + ─ norm ─ SwiGLU ─┬─ + … norm ─ head ─ logits
                 └────────────────────┘ └───────────────────┘
                  residual stream, always fp32: in fp16 its few huge channels would overflow

Module names are those of Hugging Face's files, so that the weight map is the identity and a saved adapter's names are
a prefix away from PEFT's. Sources: Llama (arXiv:2302.13971), Qwen2 (arXiv:2407.10671), RMSNorm (arXiv:1910.07467),
SwiGLU (arXiv:2002.05202); checked against transformers' modeling_llama.py and modeling_qwen2.py in tests/parity.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.attention import KVCache, document_attention
from model.config import ModelConfig
from model.rope import rope_cos_sin, rotate


class RMSNorm(nn.Module):
    """x / rms(x) · weight, computed in fp32; the result has the weight's dtype, ready for the next matrix."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        x = x.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        return (x * self.weight.float()).to(self.weight.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        queries = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=config.output_bias)

    def forward(self, x, rope, lengths: list[int] | None, cache: KVCache | None) -> torch.Tensor:
        """x [B, T, D] -> [B, T, D]. With `cache` and `lengths`: prompts to store; with `cache` alone: a token a row."""
        batch, tokens, _ = x.shape
        shape = (batch, tokens, -1, self.head_dim)
        q = rotate(self.q_proj(x).view(shape).transpose(1, 2), *rope)  # [B, H, T, D_head]
        k = rotate(self.k_proj(x).view(shape).transpose(1, 2), *rope)  # [B, H_kv, T, D_head]
        v = self.v_proj(x).view(shape).transpose(1, 2)
        if cache is not None and lengths is not None:
            cache.fill(self.layer, k, v, lengths)
        if cache is None or lengths is not None:
            out = document_attention(q, k, v, lengths, causal=True)
        else:
            out = cache.attend(self.layer, q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Pre-norm attention and pre-norm MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, rope, lengths, cache) -> torch.Tensor:
        """x [B, T, D] fp32 -> [B, T, D] fp32."""
        x = x + self.self_attn(self.input_layernorm(x), rope, lengths, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Backbone(nn.Module):
    """Everything but the head: token ids in, last hidden states out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A causal language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.checkpointing = False  # recompute each layer in the backward pass instead of keeping its activations

    @property
    def head_weight(self) -> torch.Tensor:
        """The output matrix [V, D]; the embedding itself when the two are tied."""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    def hidden_states(
        self, input_ids: torch.Tensor, lengths: list[int] | None = None, cache: KVCache | None = None
    ) -> torch.Tensor:
        """The last layer's output after the final norm.

        input_ids  [B, T] int64
        lengths    the row's documents, one after another (B = 1, they sum to T): positions restart at each and none
                   sees another. None: every row is one document, or, with a cache, a continuation's next token (T = 1)
        cache      filled by a call with `lengths` (prompts), then read and extended token by token
        Returns    [B, T, D]
        """
        if cache is not None and lengths is not None:
            cache.allocate(lengths)
        positions = self._positions(input_ids, lengths, cache)  # [B or 1, T]
        cos, sin = rope_cos_sin(positions, self.config.head_dim, self.config.rope_theta)
        rope = cos[:, None], sin[:, None]  # [B or 1, 1, T, D_head]
        x = self.model.embed_tokens(input_ids).float()  # [B, T, D]
        for layer in self.model.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, rope, lengths, cache, use_reentrant=False)
            else:
                x = layer(x, rope, lengths, cache)
        if cache is not None and lengths is None:
            cache.advance()
        return self.model.norm(x)

    def forward(self, input_ids: torch.Tensor, lengths: list[int] | None = None) -> torch.Tensor:
        """Logits [B, T, V] of every position. Training and sampling use hidden_states: they need few of them."""
        return F.linear(self.hidden_states(input_ids, lengths), self.head_weight)

    def new_cache(self, *, samples: int, prompt_tokens: int, new_tokens: int) -> KVCache:
        """An empty cache for `samples` continuations of each prompt, with room for these many tokens."""
        config = self.config
        shape = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        dtype = self.model.norm.weight.dtype
        return KVCache(shape, samples, (prompt_tokens, new_tokens), dtype=dtype, device=self.device)

    def _positions(self, input_ids, lengths, cache) -> torch.Tensor:
        if lengths is not None:  # restart at every document
            return torch.cat([torch.arange(n, device=input_ids.device) for n in lengths])[None]
        if cache is not None:
            return cache.positions()[:, None]
        return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
