"""Reading a .gguf file of llama.cpp: configuration, weights and tokenizer, in Hugging Face's terms.

Needs the extra package `gguf`, which knows the file format and the quantisations. What it does not know is here: which
tensor is which, and that llama.cpp stores the q and k rows of Llama in the interleaved RoPE layout (its
convert_hf_to_gguf.py permutes them; without undoing it SmolLM2's perplexity on library code is about 360, not 10).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, normalizers, pre_tokenizers

from model.console import UserError, need

CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type

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
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

QWEN2_WORDS = (  # the split pattern that Qwen publishes in its tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class GGUFFile:
    """An opened .gguf file; its tensors stay on the disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        """UserError when the file is not readable, or holds an architecture that is not supported."""
        self.path = path
        gguf = need("gguf", why=f"reading {path.name}")
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise UserError(f"{path}: not a readable GGUF file ({error})") from None
        self._dequantize = gguf.quants.dequantize
        self.architecture = self.get("general.architecture")
        if self.architecture not in ("llama", "qwen2"):
            raise UserError(f"{path}: architecture {self.architecture!r} is not supported; supported are llama, qwen2")

    def get(self, key: str, default=None):
        """A metadata value; `~` at the start stands for the architecture."""
        key = key.replace("~", self.architecture) if key.startswith("~") else key
        return self._reader.fields[key].contents() if key in self._reader.fields else default

    def config(self) -> dict:
        """The same as config.json would say."""
        scaling = self.get("~.rope.scaling.type")
        tied = all(tensor.name != "output.weight" for tensor in self._reader.tensors)
        return {
            "model_type": self.architecture,
            "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.architecture]],
            "vocab_size": len(self.get("tokenizer.ggml.tokens")),
            "hidden_size": self.get("~.embedding_length"),
            "intermediate_size": self.get("~.feed_forward_length"),
            "num_hidden_layers": self.get("~.block_count"),
            "num_attention_heads": self.get("~.attention.head_count"),
            "num_key_value_heads": self.get("~.attention.head_count_kv"),
            "max_position_embeddings": self.get("~.context_length"),
            "rope_theta": float(self.get("~.rope.freq_base", 10000.0)),
            "rope_scaling": None if scaling in (None, "none") else {"rope_type": scaling},
            "rms_norm_eps": round(self.get("~.attention.layer_norm_rms_epsilon"), 9),  # stored in fp32: 9.99999975e-06
            "hidden_act": "silu",
            "tie_word_embeddings": tied,
            "bos_token_id": self.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.get("tokenizer.ggml.eos_token_id"),
        }

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, fp32 tensor), one at a time."""
        heads = {"attn_q": self.get("~.attention.head_count"), "attn_k": self.get("~.attention.head_count_kv")}
        for tensor in self._reader.tensors:
            shape = [int(n) for n in reversed(tensor.shape)]  # gguf lists the fastest axis first
            weight = np.array(self._dequantize(tensor.data, tensor.tensor_type), dtype=np.float32).reshape(shape)
            if tensor.name in TENSORS:
                yield TENSORS[tensor.name], torch.from_numpy(weight)
                continue
            block, layer, part, kind = (tensor.name.split(".") + [""] * 4)[:4]
            if block != "blk" or part not in BLOCK:
                raise UserError(f"{self.path}: tensor {tensor.name!r} is not known for {self.architecture}")
            if self.architecture == "llama" and part in heads:
                weight = _half_split_layout(weight, heads[part])
            yield f"model.layers.{layer}.{BLOCK[part]}.{kind}", torch.from_numpy(weight)

    def tokenizer(self) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
        """The tokenizer, what tokenizer_config.json would say, and the end-of-text ids."""
        kind = self.get("tokenizer.ggml.model"), self.get("tokenizer.ggml.pre")
        tokens, types = self.get("tokenizer.ggml.tokens"), self.get("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ", 1)) for merge in self.get("tokenizer.ggml.merges", [])]
        vocab = {token: i for i, token in enumerate(tokens)}
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
        if kind == ("gpt2", "smollm"):
            split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        elif kind == ("gpt2", "qwen2"):
            backend.normalizer = normalizers.NFC()
            words = pre_tokenizers.Split(tokenizers.Regex(QWEN2_WORDS), behavior="isolated")
            split = [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        else:
            raise UserError(f"{self.path}: tokenizer {'/'.join(map(str, kind))} is not supported")
        backend.pre_tokenizer = pre_tokenizers.Sequence(split)
        backend.decoder = decoders.ByteLevel()
        for token, type_ in zip(tokens, types, strict=True):
            if type_ in (CONTROL, USER_DEFINED):
                added = tokenizers.AddedToken(token, normalized=False, special=type_ == CONTROL)
                (backend.add_special_tokens if type_ == CONTROL else backend.add_tokens)([added])
        ids = {name: self.get(f"tokenizer.ggml.{key}_token_id") for name, key in SPECIAL_TOKENS.items()}
        settings = {name: tokens[i] for name, i in ids.items() if i is not None}
        settings |= {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": self.get("~.context_length"),
            "chat_template": self.get("tokenizer.chat_template"),
        }
        eos = self.get("tokenizer.ggml.eos_token_id")
        return backend, settings, () if eos is None else (eos,)


SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _half_split_layout(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from (0, h, 1, h+1, …) back to (0, 1, … h-1, h, …), h = half a head."""
    rows, columns = weight.shape
    half = rows // heads // 2
    return np.ascontiguousarray(weight.reshape(heads, half, 2, columns).swapaxes(1, 2)).reshape(rows, columns)
