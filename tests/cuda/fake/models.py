"""Networks of real shapes, but two layers, made of fake weights."""

from __future__ import annotations

import torch

from lora.frozen_weight import QUANTIZE
from model.config import ModelConfig
from model.decoder import Decoder
from model.encoder import Embedding, Encoder, new_encoder
from model.weights import fill
from tests.cuda.fake.device import DEVICE

QWEN2 = {
    "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 2,
    "num_attention_heads": 14, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SHARED = {
    "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128, "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DECODERS = {
    "qwen2": QWEN2,
    "qwen3": SHARED | {"model_type": "qwen3", "hidden_act": "silu"},
    "llama": SHARED | {"model_type": "llama", "hidden_act": "silu", "tie_word_embeddings": False},
    "mistral": SHARED | {"model_type": "mistral", "hidden_act": "silu", "sliding_window": 64},
    "gemma2": SHARED | {
        "model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 128,
        "sliding_window": 64, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    },
    "gemma3": SHARED | {
        "model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 128,
        "sliding_window": 64, "sliding_window_pattern": 2, "rope_local_base_freq": 1e4,
    },
}  # fmt: skip
BERT = {
    "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 2,
    "num_attention_heads": 12, "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "type_vocab_size": 2,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
}  # fmt: skip
ENCODERS = {
    "bert": (BERT | {"model_type": "bert"}, "cls"),
    "xlm-roberta": (BERT | {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, "mean"),
    "modernbert": (
        {
            "model_type": "modernbert", "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152,
            "num_hidden_layers": 4, "num_attention_heads": 12, "max_position_embeddings": 8192, "pad_token_id": 0,
            "norm_eps": 1e-5, "norm_bias": False, "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.1,
            "embedding_dropout": 0.0, "mlp_dropout": 0.0, "hidden_activation": "gelu", "local_attention": 128,
            "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0,
        },
        "cls",
    ),
    "qwen3": (DECODERS["qwen3"], "lasttoken"),
}  # fmt: skip


def fake_decoder(family: str, dtype: torch.dtype, *, quantize: str = "none", **changes) -> Decoder:
    """A decoder on the fake device, filled the way load_decoder does. changes: of its config.json."""
    with torch.device("meta"):
        decoder = Decoder(ModelConfig.from_dict(DECODERS[family] | changes))
    tensors = ((name, torch.empty(p.shape, dtype=dtype, device=DEVICE)) for name, p in decoder.named_parameters())
    rules = {"dtype": dtype, "device": DEVICE, "where": family, "skip": lambda name: False, "put": QUANTIZE[quantize]}
    fill(decoder, tensors, **rules)
    return decoder.eval()


class Letters:
    """A tokenizer: a token a character."""

    def encode_for_encoder(self, texts: list[str], max_length: int) -> list[list[int]]:
        return [[1, *(ord(letter) % 100 for letter in text)][:max_length] for text in texts]


def fake_encoder(family: str) -> Encoder:
    """An encoder on the fake device, in fp32 as load_encoder makes it."""
    raw, pooling = ENCODERS[family]
    with torch.device("meta"):
        encoder = new_encoder(raw)
    tensors = ((name, torch.empty(p.shape, device=DEVICE)) for name, p in encoder.named_parameters())
    fill(encoder, tensors, dtype=torch.float32, device=DEVICE, where=family, skip=lambda name: False)
    encoder.tokenizer, encoder.embedding = Letters(), Embedding(pooling, "query: ", "", 256)
    return encoder.eval()
