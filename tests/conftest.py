from __future__ import annotations

import json
import os

# One thread a process, before torch is imported: tiny matrices leave nothing for a second, which would spin for it, and
# beside another busy process each would wait for the other. `make test` uses the cores by processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import settings

# The same examples in every run. To look for new ones: pytest --hypothesis-profile=default
settings.register_profile("same", derandomize=True)
settings.load_profile("same")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the reference libraries must not look for a network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


class SeededFixtures:
    """Each fixture draws its weights from the same seed, whichever tests of its worker came before."""

    def pytest_fixture_setup(self):
        torch.manual_seed(0)


def pytest_configure(config):
    """A plugin of its own: the hooks of a conftest.py below the root are not called for the session's fixtures."""
    config.pluginmanager.register(SeededFixtures())


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    """A small byte-level BPE tokenizer with ChatML's control tokens, in Hugging Face's files."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    text = ["def add(a, b):\n    return a + b\n", "import networkx as nx\n", "What does this function do?"]
    backend.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    backend.enable_truncation(4)  # files carry such settings; they must not matter
    backend.enable_padding(length=16)
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    from model import load_tokenizer

    return load_tokenizer(str(tokenizer_folder))


SMALL = {
    "vocab_size": 400,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
    "bos_token_id": 1,
}


def _llama(tied: bool, rope: dict | None = None):
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_theta": 50000.0, "rope_type": "default"} | (rope or {})
    # head_dim is not hidden / heads, and every optional bias is on
    config = LlamaConfig(
        **SMALL, head_dim=16, rope_parameters=rope, attention_bias=True, mlp_bias=True, tie_word_embeddings=tied
    )
    return LlamaForCausalLM(config)


def _qwen2(tied: bool, **settings):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**SMALL, tie_word_embeddings=tied, rms_norm_eps=1e-5, **settings))


def _qwen3():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=16, attention_bias=True, tie_word_embeddings=True))


def _mistral():
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**SMALL, head_dim=20, sliding_window=7))


def _gemma():
    from transformers import GemmaConfig, GemmaForCausalLM

    return GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=16, attention_bias=True))


def _gemma2():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        **SMALL, head_dim=16, attention_bias=True, query_pre_attn_scalar=20, sliding_window=7,
        attn_logit_softcapping=3.0, final_logit_softcapping=2.0,
    )  # fmt: skip
    return Gemma2ForCausalLM(config)


def _gemma3():
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = Gemma3TextConfig(
        **SMALL | {"num_hidden_layers": 7}, head_dim=16, attention_bias=True, query_pre_attn_scalar=20,
        sliding_window=7, rope_parameters=rope, final_logit_softcapping=2.0,
    )  # fmt: skip
    return Gemma3ForCausalLM(config)


TRAINED = {"original_max_position_embeddings": 32}
# Every supported family with every feature on; texts of 37 tokens reach beyond the windows and the trained lengths.
DECODERS = {
    "llama": lambda: _llama(tied=False),
    "llama-tied": lambda: _llama(tied=True),
    "llama-linear": lambda: _llama(False, {"rope_type": "linear", "factor": 4.0}),
    "llama-dynamic": lambda: _llama(False, {"rope_type": "dynamic", "factor": 3.0}),
    "llama-llama3": lambda: _llama(
        False, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **TRAINED}
    ),
    "llama-yarn": lambda: _llama(False, {"rope_type": "yarn", "factor": 8.0, **TRAINED}),
    "llama-yarn-mscale": lambda: _llama(
        False, {"rope_type": "yarn", "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.3, "truncate": False, **TRAINED}
    ),
    "mistral": _mistral,
    "qwen2": lambda: _qwen2(tied=False),
    "qwen2-tied": lambda: _qwen2(tied=True),
    "qwen2-window": lambda: _qwen2(False, use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
}


def randomize(reference) -> None:
    """Weights large enough that every part matters: fresh ones leave norms at 1, biases at 0, logits near 0."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name.lower() and name.endswith("weight")
            stored_less_1 = is_norm and "gemma" in type(reference).__name__.lower()
            parameter.copy_(0.2 * noise + (not stored_less_1) if is_norm else 0.15 * noise)


@pytest.fixture(scope="session", params=DECODERS)
def reference_decoder(request, tmp_path_factory, tokenizer_folder):
    """(transformers' model in fp32, the folder that it was saved to)."""
    reference = DECODERS[request.param]()
    if request.param == "llama-dynamic":
        reference.config.max_position_embeddings = 24
        reference = type(reference)(reference.config)
    reference.set_attn_implementation("eager")  # the only one that knows the soft-cap
    reference = reference.float().eval()
    randomize(reference)
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer_folder / name).read_bytes())
    return reference, folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tokenizer_folder):
    """A tiny random Llama with a tied head and the small tokenizer, to train on."""
    reference = _llama(tied=True).float()
    folder = tmp_path_factory.mktemp("tiny")
    reference.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tokenizer_folder / name).read_bytes())
    return folder


@pytest.fixture
def tiny(tiny_folder):
    from model import load_decoder

    return load_decoder(str(tiny_folder))


@pytest.fixture(scope="session")
def reference_encoder(tmp_path_factory):
    """(transformers' BertModel in fp32, its folder, written as a sentence-transformers model with CLS pooling)."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=120, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, attn_implementation="eager",
    )  # fmt: skip
    reference = BertModel(config).float().eval()
    randomize(reference)
    folder = tmp_path_factory.mktemp("bert")
    reference.save_pretrained(folder)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    backend = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "BertTokenizerFast",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 48, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return reference, folder
