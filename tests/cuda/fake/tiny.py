"""Models on disk, of real numbers and as small as can be, for the commands that load one by its folder."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from lora.adapter_file import save_adapter
from lora.inject import inject
from model import load_tokenizer, save_decoder, save_encoder
from model.config import ModelConfig
from model.decoder import Decoder
from model.encoder import Embedding, new_encoder
from tests.cuda.fake.models import BERT

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SIZES = {
    "vocab_size": 272, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
QWEN2 = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip


def write(folder: Path) -> None:
    """folder/decoder, folder/adapter for it, and folder/encoder. Outside of the fake mode: the weights are real."""
    words = folder / "tokenizer"
    words.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: n for n, letter in enumerate([*CONTROL, *alphabet, "in"])}, [("i", "n")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CONTROL])
    backend.save(str(words / "tokenizer.json"))
    settings = {"eos_token": CONTROL[0], "pad_token": CONTROL[0], "chat_template": TEMPLATE}
    (words / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(str(words))
    decoder = Decoder(ModelConfig.from_dict(SIZES | QWEN2))
    save_decoder(decoder, tokenizer, folder / "decoder")
    inject(decoder, r=4, alpha=8, targets="all-linear")
    save_adapter(decoder, folder / "adapter", base_model="tiny", task_type="CAUSAL_LM")
    encoder = new_encoder(BERT | SIZES | {"model_type": "bert"})
    encoder.tokenizer, encoder.embedding = tokenizer, Embedding("mean", "query: ", "", 128)
    save_encoder(encoder, folder / "encoder")
