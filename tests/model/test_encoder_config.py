"""An encoder's config.json is read whole: what may change the arithmetic and is not implemented is refused by name."""

from __future__ import annotations

import pytest

from common.console import UserError
from model.encoder import BertEncoder, DecoderEncoder, ModernBertEncoder, new_encoder
from model.encoder_config import BertConfig, ModernBertConfig

SIZES = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
BERT = {
    "model_type": "bert", **SIZES, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "tokenizer_class": "XLMRobertaTokenizer",
}  # fmt: skip
XLM_R = BERT | {"model_type": "xlm-roberta", "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
# every key of the first published files, the unused ones too
MODERNBERT = {
    "model_type": "modernbert", **SIZES, "attention_bias": False, "attention_dropout": 0.0,
    "classifier_activation": "gelu", "classifier_bias": False, "classifier_dropout": 0.0, "classifier_pooling": "mean",
    "cls_token_id": 2, "decoder_bias": True, "deterministic_flash_attn": False, "embedding_dropout": 0.0,
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": False,
    "hidden_activation": "gelu", "initializer_cutoff_factor": 2.0, "layer_norm_eps": 1e-5, "local_attention": 128,
    "local_rope_theta": 10000.0, "mlp_bias": False, "mlp_dropout": 0.0, "norm_bias": False, "norm_eps": 1e-5,
    "position_embedding_type": "absolute", "reference_compile": False, "sparse_pred_ignore_index": -100,
    "sparse_prediction": False, "tie_word_embeddings": True,
}  # fmt: skip
LAYER_TYPES = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
QWEN3 = {
    "model_type": "qwen3", **SIZES, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "rope_theta": 1e6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "change", "named"),
    [
        (BERT, {"position_embedding_type": "relative_key"}, "relative_key"),
        (BERT, {"hidden_act": "relu"}, "relu"),
        (BERT, {"is_decoder": True}, "is_decoder"),
        (BERT, {"add_cross_attention": True}, "add_cross_attention"),
        (BERT, {"embedding_size": 32}, "embedding_size"),
        (BERT, {"layer_norm_eps": None}, "layer_norm_eps"),
        (BERT, {"model_type": "mpnet"}, "mpnet"),
        (BERT, {"hidden_size": "wide"}, "hidden_size='wide'"),
        (BERT, {"layer_norm_eps": "small"}, "layer_norm_eps='small'"),
        (BERT, {"num_attention_heads": 5}, "not a multiple of num_attention_heads=5"),
        (MODERNBERT, {"norm_bias": "no"}, "norm_bias='no'"),
        (MODERNBERT, {"layer_types": 5}, "layer_types=5"),
        (MODERNBERT, {"rope_parameters": 5}, "rope_parameters=5"),
        (XLM_R, {"pad_token_id": None}, "pad_token_id"),
        (MODERNBERT, {"hidden_activation": "relu"}, "relu"),
        (MODERNBERT, {"local_rope_theta": None}, "local_rope_theta"),
        (MODERNBERT, {"global_attn_every_n_layers": None}, "global_attn_every_n_layers"),
        (MODERNBERT, {"layer_types": ["full_attention"]}, "layer_types"),
        (MODERNBERT, {"layer_types": [*LAYER_TYPES[:3], "linear_attention"]}, "linear_attention"),
        (MODERNBERT, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        (MODERNBERT, {"rope_parameters": ROPES | {"full_attention": {"rope_type": "linear"}}}, "linear"),
        (MODERNBERT, {"rope_parameters": ROPES | {"full_attention": {"rope_theta": 1.0, "factor": 2.0}}}, "factor"),
        (QWEN3, {"is_causal": False}, "is_causal"),
        (QWEN3, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_what_changes_the_arithmetic_and_is_not_implemented_is_refused_by_name(raw, change, named):
    new_encoder(raw)
    with pytest.raises(UserError, match=named):
        new_encoder(raw | change)


def test_the_family_chooses_the_network():
    networks = [type(new_encoder(raw)) for raw in (BERT, XLM_R, MODERNBERT, QWEN3)]
    assert networks == [BertEncoder, BertEncoder, ModernBertEncoder, DecoderEncoder]


def test_robertas_texts_begin_after_the_padding_position():
    bert, roberta = BertConfig.from_dict(BERT), BertConfig.from_dict(XLM_R)
    assert (bert.first_position, bert.max_tokens) == (0, 512)
    assert (roberta.first_position, roberta.max_tokens) == (2, 512)


def test_modernberts_older_and_newer_files_say_the_same():
    older = ModernBertConfig.from_dict(MODERNBERT)
    old_keys = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    newer = {key: value for key, value in MODERNBERT.items() if key not in old_keys}
    newer |= {"layer_types": LAYER_TYPES, "rope_parameters": ROPES}
    assert ModernBertConfig.from_dict(newer) == older
    assert older.windows == (None, 64, 64, None)
    assert (older.rope.theta, older.local_rope.theta) == (160000.0, 10000.0)
