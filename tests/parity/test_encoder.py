"""Our encoders against transformers, gradients and all, and against sentence-transformers, in both directions."""

from __future__ import annotations

import json
import shutil

import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers
from torch.testing import assert_close

from lora.adapter import adapter_in_use, remove
from lora.adapter_file import save_adapter
from lora.inject import inject
from model import load_encoder, save_encoder
from model.weights import locate
from tests.conftest import randomize

SMALL = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4,
         "num_attention_heads": 4}  # fmt: skip
POOLINGS = {
    "bert": "mean",
    "xlm-roberta": "mean",
    "modernbert": "cls",
    "modernbert-plain": "mean",
    "qwen3": "lasttoken",
}
PROMPTS = {"query": "find the code: ", "document": "code: "}
MAX_LENGTH = 40
IDS = torch.randint(4, 250, (2, 33), generator=torch.Generator().manual_seed(5))
TEXTS = [
    "where is the shortest path computed?",
    "def add(a, b):\n    return a + b",
    "x",
    "Ünïcode and ΟΔΟΣ, numbers 12345 " * 20,  # longer than the model reads
    "return the sum",
]


def _network(family: str):
    """transformers' network with every feature on that the family has."""
    if family == "bert":
        config = transformers.BertConfig(**SMALL, max_position_embeddings=64, layer_norm_eps=1e-7)
        return transformers.BertModel(config)
    if family == "xlm-roberta":
        config = transformers.XLMRobertaConfig(
            **SMALL, max_position_embeddings=MAX_LENGTH + 2, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5
        )
        return transformers.XLMRobertaModel(config)
    if family.startswith("modernbert"):  # windows of 4 to each side in the second, third and fifth layer
        full = family == "modernbert"
        config = transformers.ModernBertConfig(
            **SMALL | {"num_hidden_layers": 5}, max_position_embeddings=64, local_attention=8, pad_token_id=0,
            bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3, norm_eps=1e-4,
            norm_bias=full, attention_bias=full, mlp_bias=full,
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 90000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        )  # fmt: skip
        return transformers.ModernBertModel(config)
    config = transformers.Qwen3Config(
        **SMALL, num_key_value_heads=2, head_dim=16, max_position_embeddings=64, attention_bias=True,
        rope_parameters={"rope_type": "default", "rope_theta": 5e4}, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    return transformers.Qwen3Model(config)


def _tokenizer(family: str):
    """A tiny tokenizer of the family's kind, with its special tokens around a text."""
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:()+?="]
    if family == "bert":
        control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words = [*control, *letters, *(f"##{letter}" for letter in letters), "return", "the"]
        return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    if family == "xlm-roberta":
        control = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
        pieces = [("▁", -2.0), ("▁return", -4.0), ("the", -4.5), *((letter, -5.0) for letter in [*letters, *"σς"])]
        return transformers.XLMRobertaTokenizer(vocab=[*control, *pieces, ("<mask>", 0.0)])
    is_decoder = family == "qwen3"
    special = (
        {"eos": "<|endoftext|>"} if is_decoder else {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=[*special.values()], initial_alphabet=alphabet)
    backend.train_from_iterator(TEXTS, trainer)
    around = "$A <|endoftext|>" if is_decoder else "[CLS] $A [SEP]"
    ids = [(token, backend.token_to_id(token)) for token in special.values() if token in around]
    backend.post_processor = processors.TemplateProcessing(single=around, pair=f"{around} $B", special_tokens=ids)
    special |= {"pad": "<|endoftext|>"} if is_decoder else {}
    named = {f"{role}_token": token for role, token in special.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **named)


@pytest.fixture(scope="module", params=POOLINGS)
def published(request, tmp_path_factory):
    """(transformers' network in fp32, sentence-transformers' model of it, the folder that the latter wrote)."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    network = _network(family).float().eval()
    randomize(network)
    network.save_pretrained(folder / "network")
    _tokenizer(family).save_pretrained(folder / "network")
    body = Transformer(str(folder / "network"), processor_kwargs={"model_max_length": MAX_LENGTH})
    pooling = Pooling(SMALL["hidden_size"], pooling_mode=POOLINGS[family])
    theirs = SentenceTransformer(modules=[body, pooling, Normalize()], prompts=PROMPTS, device="cpu")
    theirs.save(str(folder / "model"))
    return network, theirs, folder / "model"


def test_hidden_states_and_every_gradient_equal_transformers(published):
    reference, _, folder = published
    ours = load_encoder(str(folder))
    expected = reference(IDS).last_hidden_state
    actual = ours(IDS)
    assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    direction = torch.randn(expected.shape)
    (expected * direction).sum().backward()
    (actual * direction).sum().backward()
    theirs = {name: p.grad for name, p in reference.named_parameters() if not name.startswith("pooler.")}
    reference.zero_grad()
    assert theirs.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert theirs[name].abs().max() > 0 or name.endswith((".key.bias", "k_proj.bias")), name  # softmax ignores it
        scale = theirs[name].abs().max().item()
        assert_close(parameter.grad, theirs[name], atol=2e-5 * max(scale, 1), rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_texts_packed_in_a_row_do_not_see_each_other(published):
    reference, _, folder = published
    lengths = [9, 1, 23]  # one of them longer than the window of ModernBERT's local layers
    packed = load_encoder(str(folder))(IDS[:1], lengths).split(lengths, dim=1)
    for actual, ids in zip(packed, IDS[:1].split(lengths, dim=1), strict=True):
        assert_close(actual, reference(ids).last_hidden_state, atol=1e-5, rtol=1e-5)


def test_a_row_is_filled_to_whole_tiles_and_the_filler_changes_no_vector(published, monkeypatch):
    encoder = load_encoder(str(published[2]))
    rows = [ids.tolist() for ids in IDS[0].split([9, 1, 23])] + [IDS[1].tolist()]
    packed, lengths = encoder.pack(rows)
    assert packed.shape == (1, 96) and lengths == [9, 1, 23, 33, 30]
    filled = encoder.embed(rows)
    monkeypatch.setattr("model.encoder.TILE", 1)
    assert encoder.pack(rows)[1] == [9, 1, 23, 33] and len(filled) == 4
    assert_close(filled, encoder.embed(rows), atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["xlm-roberta", "modernbert", "qwen3"])
def test_a_network_that_was_saved_under_a_head_is_found(family, tmp_path):
    """Published files are often those of the pre-training model: another prefix, and a head too many."""
    reference = {
        "xlm-roberta": transformers.XLMRobertaForMaskedLM,
        "modernbert": transformers.ModernBertForMaskedLM,
        "qwen3": transformers.Qwen3ForCausalLM,
    }[family](_network(family).config).eval()
    randomize(reference)
    reference.save_pretrained(tmp_path)
    _tokenizer(family).save_pretrained(tmp_path)
    names = safetensors.torch.load_file(tmp_path / "model.safetensors").keys()
    assert any(name.startswith(("roberta.", "model.")) for name in names)
    ours = load_encoder(str(tmp_path), pooling="mean", query_prefix="", passage_prefix="")
    expected = reference.base_model(IDS).last_hidden_state
    assert_close(ours(IDS), expected, atol=1e-5, rtol=1e-5)


def _assert_equal_vectors(ours, theirs):
    for kind, encode in (("query", theirs.encode_query), ("passage", theirs.encode_document)):
        expected = torch.from_numpy(encode(TEXTS))
        assert_close(ours.encode(TEXTS, kind=kind), expected, atol=1e-5, rtol=0)
    assert (ours.encode(TEXTS, kind="query") - expected).abs().max() > 1e-2  # the prefix matters
    assert ours.count_at_limit(TEXTS, kind="query") >= 1  # and a text is cut


def test_vectors_equal_sentence_transformers_on_its_folder_and_on_ours(published, tmp_path):
    from sentence_transformers import SentenceTransformer

    _, theirs, folder = published
    ours = load_encoder(str(folder))
    assert ours.embedding.max_length == MAX_LENGTH and ours.embedding.query_prefix == PROMPTS["query"]
    _assert_equal_vectors(ours, theirs)
    save_encoder(ours, tmp_path / "saved")
    _assert_equal_vectors(ours, SentenceTransformer(str(tmp_path / "saved"), device="cpu"))
    again = load_encoder(str(tmp_path / "saved"))
    assert again.embedding == ours.embedding
    assert torch.equal(again.encode(TEXTS, kind="query"), ours.encode(TEXTS, kind="query"))


def test_an_adapter_loads_in_peft_and_its_merged_model_in_sentence_transformers(published, tmp_path):
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer

    _, _, folder = published
    ours = load_encoder(str(folder))
    before = ours.encode(TEXTS)
    inject(ours, r=4, alpha=8, targets="all-linear")
    assert len(adapter_in_use(ours)) % ours.config.num_hidden_layers == 0
    for layer in adapter_in_use(ours).values():
        torch.nn.init.normal_(layer.lora_B.weight, std=0.02)
    adapted = ours(IDS)
    save_adapter(ours, tmp_path / "adapter", base_model=str(folder), task_type="FEATURE_EXTRACTION")
    theirs = PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(folder), tmp_path / "adapter").eval()
    assert_close(adapted, theirs(IDS).last_hidden_state, atol=1e-5, rtol=1e-5)
    remove(ours, merge=True)
    assert (ours.encode(TEXTS) - before).abs().max() > 1e-3
    save_encoder(ours, tmp_path / "merged")
    _assert_equal_vectors(ours, SentenceTransformer(str(tmp_path / "merged"), device="cpu"))


@pytest.mark.parametrize("published", ["modernbert"], indirect=True)
def test_a_text_of_many_windows_equals_transformers(published):
    reference, _, folder = published
    ids = torch.randint(4, 250, (1, 600))
    actual = load_encoder(str(folder))(ids)
    assert_close(actual, reference(ids).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("published", ["modernbert"], indirect=True)
def test_modernberts_older_configuration_computes_the_same(published, tmp_path):
    _, _, folder = published
    new = load_encoder(str(folder))
    shutil.copytree(folder, tmp_path / "older")
    raw = json.loads((folder / "config.json").read_text())
    del raw["layer_types"], raw["rope_parameters"]
    raw |= {"global_attn_every_n_layers": 3, "global_rope_theta": 90000.0, "local_rope_theta": 50.0}
    (tmp_path / "older" / "config.json").write_text(json.dumps(raw))
    older = load_encoder(str(tmp_path / "older"))
    assert older.config == new.config and older.config.windows == (None, 4, 4, None, 4)
    reference = transformers.AutoModel.from_pretrained(tmp_path / "older").eval()
    assert_close(older(IDS), reference(IDS).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("published", ["xlm-roberta"], indirect=True)
def test_texts_are_lower_cased_where_the_files_say_so(published, tmp_path):
    from sentence_transformers import SentenceTransformer

    _, _, folder = published
    shutil.copytree(folder, tmp_path / "lower")
    settings = {"max_seq_length": MAX_LENGTH, "do_lower_case": True}
    (tmp_path / "lower" / "sentence_bert_config.json").write_text(json.dumps(settings))
    ours, as_it_is = load_encoder(str(tmp_path / "lower")), load_encoder(str(folder))
    texts = ["RETURN the Sum", "ΟΔΟΣ"]  # whose last letter Python would make an ς, and tokenizers make a σ
    save_encoder(ours, tmp_path / "saved")
    for where in ("lower", "saved"):
        theirs = SentenceTransformer(str(tmp_path / where), device="cpu").encode_query(texts)
        assert_close(ours.encode(texts, kind="query"), torch.from_numpy(theirs), atol=1e-5, rtol=0)
    assert not torch.equal(ours.encode(texts), as_it_is.encode(texts))


def test_embeddings_equal_sentence_transformers_for_the_embedded_encoder(tmp_path):
    from sentence_transformers import SentenceTransformer

    ours = load_encoder("all-minilm-l6-v2")
    save_encoder(ours, tmp_path / "saved")
    texts = [*TEXTS, "", "numbers 12345 and words " * 90]
    for folder in (locate("all-minilm-l6-v2"), tmp_path / "saved"):  # the published one, and what we save
        theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
        assert_close(ours.encode(texts), torch.from_numpy(theirs), atol=1e-5, rtol=0)


def test_the_text_of_a_control_token_is_plain_text(reference_encoder):
    encoder = load_encoder(str(reference_encoder[1]))
    (ids,) = encoder.tokenize(["a [SEP] b"], kind="query")
    separator = encoder.tokenizer.control_tokens["[SEP]"]
    assert ids.count(separator) == 1 and ids[-1] == separator


def test_texts_that_are_cut_are_counted(reference_encoder):
    encoder = load_encoder(str(reference_encoder[1]), max_length=8)
    texts = ["a b c", "a b c d e", "a b c d e f", "a b c d e f g"]  # with [CLS] and [SEP]: 5, 7, 8 and 9 tokens
    assert encoder.count_at_limit(texts, kind="passage") == 2
    assert [len(row) for row in encoder.tokenize(texts, kind="passage")] == [5, 7, 8, 8]
    encoder.encode(texts[1:3])
    encoder.encode(texts[3:])
    assert encoder.encoded_at_limit == 2


def test_an_end_that_only_the_settings_ask_for_is_pooled_and_saved(tmp_path):
    """As e5-mistral's. transformers 4 followed add_eos_token; 5 does if asked, and then wants add_bos_token as well."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    network = _network("qwen3").float().eval()
    randomize(network)
    network.save_pretrained(tmp_path / "network")
    theirs = _tokenizer("qwen3")
    theirs.add_special_tokens({"bos_token": "<|im_start|>"})
    special = [(token, theirs.convert_tokens_to_ids(token)) for token in ("<|im_start|>", "<|endoftext|>")]
    theirs.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=special
    )
    theirs.save_pretrained(tmp_path / "network")
    body = Transformer(str(tmp_path / "network"), processor_kwargs={"model_max_length": MAX_LENGTH})
    modules = [body, Pooling(SMALL["hidden_size"], pooling_mode="lasttoken"), Normalize()]
    SentenceTransformer(modules=modules, prompts=PROMPTS, device="cpu").save(str(tmp_path / "model"))
    path = tmp_path / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_eos_token": True}))
    asked = {"add_eos_token": True, "add_bos_token": True}
    expected = SentenceTransformer(str(tmp_path / "model"), device="cpu", processor_kwargs=asked).encode(TEXTS)
    unasked = SentenceTransformer(str(tmp_path / "model"), device="cpu").encode(TEXTS)
    assert (expected[0] @ unasked[0]) < 0.999  # not passing because the end does not matter
    ours = load_encoder(str(tmp_path / "model"), query_prefix="", passage_prefix="")
    assert_close(ours.encode(TEXTS), torch.from_numpy(expected), atol=1e-5, rtol=0)
    save_encoder(ours, tmp_path / "saved")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(TEXTS)
    assert_close(torch.from_numpy(again), torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert_close(load_encoder(str(tmp_path / "saved")).encode(TEXTS), torch.from_numpy(expected), atol=1e-5, rtol=0)
