"""Reading .gguf files: damaged ones are one line, quantisations and tokenizers are those of the reference."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, trainers
from torch.testing import assert_close

import model.gguf.file
from common.console import UserError
from model import load_decoder, load_tokenizer
from model.export.gguf import write_gguf
from model.export.verify import TRICKY_TEXTS
from model.gguf.file import READABLE, GGUFFile
from model.gguf.header import read_header
from model.gguf.metadata import rope_divisors
from model.gguf.tensors import stored_name, tensor_name
from model.gguf.tokenizer import PRE, read_tokenizer, tokenizer_metadata
from model.rope import Rope
from model.tokenizer import Tokenizer
from tests.commands import ROOT


@pytest.fixture(scope="module")
def file(tiny_folder, tmp_path_factory):
    """A whole, small .gguf file."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(load_decoder(str(tiny_folder)), load_tokenizer(str(tiny_folder)), path, type="f16", name="tiny")
    return path


def read_all(path: Path) -> tuple[dict, dict]:
    """Configuration and tensors; the tokenizer is read too."""
    opened = GGUFFile(path)
    opened.tokenizer()
    return opened.config(), dict(opened.tensors())


def test_the_undamaged_file_is_read(file, tiny_folder):
    config, tensors = read_all(file)
    assert config["num_hidden_layers"] == 3
    assert tensors.keys() == dict(load_decoder(str(tiny_folder)).named_parameters()).keys()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line_and_at_once(file, tmp_path, data):
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        del content[data.draw(st.integers(0, len(content) - 1), label="length") :]
    for _ in range(data.draw(st.integers(1, 4), label="flips")):
        if content:  # most often among the first bytes, where counts and lengths are
            at = data.draw(st.one_of(st.integers(0, min(2000, len(content)) - 1), st.integers(0, len(content) - 1)))
            content[at] = data.draw(st.integers(0, 255))
    (tmp_path / "x.gguf").write_bytes(content)
    began = time.process_time()
    try:
        read_all(tmp_path / "x.gguf")
    except UserError as error:
        assert "x.gguf" in str(error) and len(str(error)) < 500
    assert time.process_time() - began < 5


COUNTS = struct.Struct("<QQ")  # tensors, metadata entries; after the magic and the version


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c.__setitem__(slice(0, 4), b"GGML"), "does not start with GGUF"),
        (lambda c: c.__setitem__(slice(4, 8), struct.pack("<I", 1)), "version 1"),
        (lambda c: COUNTS.pack_into(c, 8, 2**60, 1), "tensors at byte|exceed the file"),
        (lambda c: COUNTS.pack_into(c, 8, 1, 2**60), "1152921504606846976 metadata entries"),
        (lambda c: struct.pack_into("<Q", c, 24, 2**60), "1152921504606846976 characters"),
        (lambda c: c.__delitem__(slice(len(c) - 5000, None)), "truncated"),
        (lambda c: c.__delitem__(slice(100, None)), "exceed the file|unpack"),
        (lambda c: c.clear(), "not a readable GGUF file"),
    ],
)
def test_damage_is_named(file, tmp_path, change, named):
    content = bytearray(file.read_bytes())
    change(content)
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.gguf: .*({named})"):
        GGUFFile(tmp_path / "x.gguf")


def write_tensors(path: Path, tensors: dict[str, tuple[np.ndarray, gguf.GGMLQuantizationType]]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_tensors_that_overlap_are_refused(tmp_path):
    weight = np.ones((4, 32), np.float32), gguf.GGMLQuantizationType.F32
    path = write_tensors(tmp_path / "x.gguf", {"output.weight": weight, "output_norm.weight": weight})
    content = bytearray(path.read_bytes())
    at = content.index(b"output_norm.weight") + len(b"output_norm.weight") + 4 + 16 + 4  # after dimensions, shape, type
    assert struct.unpack_from("<Q", content, at)[0] == 512
    struct.pack_into("<Q", content, at, 256)
    path.write_bytes(content)
    with pytest.raises(UserError, match="overlaps another"):
        GGUFFile(path)


@pytest.mark.parametrize("kind", READABLE)
def test_every_quantisation_reads_as_the_gguf_package_does_it(kind, tmp_path, monkeypatch):
    kind = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, columns = 10, 512
    stored = np.random.default_rng(0).integers(0, 60, (rows, columns // block * size), dtype=np.uint8)
    view = {"F32": np.float32, "F16": np.float16}.get(kind.name)
    path = write_tensors(tmp_path / "x.gguf", {"output.weight": (stored.view(view) if view else stored, kind)})
    monkeypatch.setattr(model.gguf.file, "ROWS_AT_ONCE", 3)  # pieces that do not divide the rows
    expected = gguf.quants.dequantize(stored.view(view) if view else stored, kind)
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(GGUFFile(path).dequantised("output.weight"), expected.reshape(rows, columns))


def test_an_unsupported_quantisation_is_named(tmp_path):
    stored = np.zeros((4, 110), np.uint8), gguf.GGMLQuantizationType.Q3_K
    with pytest.raises(UserError, match="Q3_K is not supported"):
        GGUFFile(write_tensors(tmp_path / "x.gguf", {"output.weight": stored}))


def test_an_architecture_that_is_not_supported_is_named(file, tmp_path):
    content = file.read_bytes().replace(
        b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00mamba", 1
    )
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(UserError, match="architecture 'mamba' is not supported"):
        GGUFFile(tmp_path / "x.gguf")


def test_names_are_those_of_the_gguf_package():
    for architecture, family in (("llama", "LLAMA"), ("qwen3", "QWEN3"), ("gemma2", "GEMMA2"), ("gemma3", "GEMMA3")):
        reference = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family], 12)
        parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "input_layernorm"]
        parts += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "post_attention_layernorm"]
        parts += ["self_attn.q_norm", "self_attn.k_norm"] if architecture in ("qwen3", "gemma3") else []
        parts += ["pre_feedforward_layernorm", "post_feedforward_layernorm"] if "gemma" in architecture else []
        names = [
            "model.embed_tokens.weight",
            "model.norm.weight",
            *(f"model.layers.11.{part}.weight" for part in parts),
        ]
        for name in names:
            stored = stored_name(architecture, name)
            assert stored == reference.get_name(name, try_suffixes=(".weight",))
            assert tensor_name(architecture, stored) == name


def test_rope_divisors_are_what_transformers_divides_the_frequencies_by():
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    config = LlamaConfig(
        hidden_size=512, num_attention_heads=8, max_position_embeddings=131072, rope_parameters=scaling
    )
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** (-torch.arange(0, 64, 2) / 64)
    rope = Rope.from_dict(scaling, head_dim=64, theta=500000.0, max_positions=131072)
    divisors = rope_divisors(rope)
    assert divisors.min() == 1 and divisors.max() == 32  # not passing because nothing is scaled
    assert_close(plain / divisors, theirs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("pre", PRE)
def test_a_tokenizer_survives_the_metadata(pre, tokenizer):
    """Each pre-tokenizer, on a small vocabulary."""
    definition = json.loads(tokenizer.backend.to_str())
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"trim_offsets": True, **s} for s in PRE[pre]]}
    definition["normalizer"] = {"type": "NFC"} if pre == "qwen2" else None
    definition["model"]["ignore_merges"] = pre in ("llama-bpe", "tekken")
    source = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), tokenizer.settings)
    metadata = tokenizer_metadata(source, 400) | {"general.architecture": "llama"}
    assert metadata["tokenizer.ggml.pre"] == pre
    assert metadata["tokenizer.ggml.tokens"][-1] == "[PAD399]" and metadata["tokenizer.ggml.token_type"][-1] == 5
    backend, read, _ = read_tokenizer(metadata)
    assert read["eos_token"] == "<|endoftext|>" and "[PAD399]" not in backend.get_vocab()
    for text in TRICKY_TEXTS:
        assert backend.encode(text).ids == source.backend.encode(text).ids


@pytest.mark.parametrize("prepends", [True, False])
def test_a_sentencepiece_tokenizer_survives_the_metadata(prepends):
    """Merges become scores and merges again; what is in no piece falls back to bytes."""
    backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    space = [*([normalizers.Prepend("\u2581")] if prepends else []), normalizers.Replace(" ", "\u2581")]
    backend.normalizer = normalizers.Sequence(space)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    code = Path(__file__).read_text(encoding="utf-8").splitlines()
    backend.train_from_iterator(code, trainer)
    definition = json.loads(backend.to_str())
    definition["added_tokens"] = definition["added_tokens"][:3]  # the bytes are pieces, not control tokens
    source = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(definition)), {"eos_token": "</s>"})
    metadata = tokenizer_metadata(source, 600) | {"general.architecture": "llama"}
    assert (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.add_space_prefix"]) == ("llama", prepends)
    assert metadata["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]  # unknown, control, control, byte
    again = Tokenizer(*read_tokenizer(metadata))
    for text in (*TRICKY_TEXTS, *code):
        assert again.encode(text) == source.encode(text)
        assert again.decode(again.encode(text)) == text


def test_the_embedded_tokenizer_reads_what_llama_cpp_reads():
    """Ids as llama.cpp gives them for the same file: digits one by one, before the words."""
    tokenizer = load_tokenizer("smollm2-135m")
    assert tokenizer.encode("x = 12 345\n") == [104, 446, 216, 33, 34, 216, 35, 36, 37, 198]
    assert tokenizer.encode("١٢٣ ½ 2²") == [164, 111, 164, 112, 164, 113, 216, 16738, 216, 34, 19133]
    assert tokenizer.encode("I'll  naïve 日本") == [57, 3060, 216, 15486, 46494, 17097, 241, 115, 40993]


def test_another_way_of_cutting_text_is_refused_by_name(tokenizer):
    metadata = tokenizer_metadata(tokenizer, 400) | {"general.architecture": "llama", "tokenizer.ggml.pre": "poro-chat"}
    with pytest.raises(UserError, match="gpt2/poro-chat is not supported"):
        read_tokenizer(metadata)


MEASURE = """
import sys, threading, time
import torch
from model import load_decoder

def memory():                                      # without the mapped file, whose pages the system may take back
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))

def watch():
    while not done:
        peaks.append(memory())
        time.sleep(0.001)

small, large = sys.argv[1:]
load_decoder(small)                                # what loading itself needs once
before, peaks, done = memory(), [], False
watcher = threading.Thread(target=watch)
watcher.start()
decoder = load_decoder(large, dtype=torch.bfloat16)
done = True
watcher.join()
sizes = [p.numel() for p in decoder.parameters()]
print(max(peaks) - before, 2 * sum(sizes), 4 * max(sizes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured by Linux's /proc")
def test_loading_needs_little_more_memory_than_the_weights_and_one_tensor(file, tokenizer_folder, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=60_000, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "large")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_folder / name, tmp_path / "large" / name)
    decoder, tokenizer = load_decoder(str(tmp_path / "large")), load_tokenizer(str(tmp_path / "large"))
    write_gguf(decoder, tokenizer, tmp_path / "large.gguf", type="q8_0", name="large")
    command = [sys.executable, "-c", MEASURE, str(file), str(tmp_path / "large.gguf")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    peak, weights, largest = map(int, done.stdout.split()) if done.returncode == 0 else pytest.fail(done.stderr)
    assert weights > 100e6 and 0.9 * weights < peak < 1.15 * weights + largest, (peak, weights, largest)


def llama_cpp_vocabularies() -> list[Path]:
    folder = Path(os.environ.get("TRITUNE_LLAMA_CPP", "."), "models")
    return sorted(folder.glob("ggml-vocab-*.gguf.out"))


@pytest.mark.skipif(not llama_cpp_vocabularies(), reason="TRITUNE_LLAMA_CPP names no source folder of llama.cpp")
@pytest.mark.parametrize("name", ["llama-bpe", "llama-spm", "deepseek-coder", "qwen2", "gpt-2", "starcoder", "phi-3"])
def test_the_vocabularies_of_llama_cpp_read_its_texts_as_it_says(name):
    """47 texts each; the expected ids are those of the original tokenizers."""
    out = Path(os.environ["TRITUNE_LLAMA_CPP"], "models", f"ggml-vocab-{name}.gguf.out")
    texts = out.with_suffix(".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    expected = [[int(i) for i in line.split()] for line in out.read_text(encoding="utf-8").split("\n")]
    backend, _, _ = read_tokenizer(read_header(out.with_suffix("")).metadata)
    assert len(texts) == 47
    for text, ids in zip(texts, expected, strict=True):
        assert backend.encode(text, add_special_tokens=False).ids == ids, text


TOKENIZERS = Path(os.environ.get("TRITUNE_TOKENIZERS", "/nowhere"))


@pytest.mark.skipif(not TOKENIZERS.is_dir(), reason="TRITUNE_TOKENIZERS names no folder of tokenizers")
def test_real_tokenizers_survive_the_metadata():
    """Folders of tokenizer.json and tokenizer_config.json: Qwen, Llama 3, Gemma, Mistral Nemo, DeepSeek …"""
    folders = sorted(path.parent for path in TOKENIZERS.glob("*/tokenizer.json"))
    assert folders
    for folder in folders:
        source = load_tokenizer(str(folder))
        size = max(source.backend.get_vocab().values()) + 1
        again = Tokenizer(*read_tokenizer(tokenizer_metadata(source, size) | {"general.architecture": "llama"}))
        assert (again.prefix_ids, again.stop_ids) == (source.prefix_ids, source.stop_ids)
        for text in TRICKY_TEXTS:
            assert again.encode(text) == source.encode(text), (folder.name, text)
