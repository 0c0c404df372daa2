"""Loading and saving embedding models in sentence-transformers' layout: network, tokenizer, pooling, prefixes.

config.json, model.safetensors, tokenizer.json    the network
modules.json                                      what follows: pooling, perhaps normalization
1_Pooling/config.json                             the kind of pooling
sentence_bert_config.json                         maximum length, lower case
config_sentence_transformers.json                 prefixes, there called prompts
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import tokenizers
import torch
from tokenizers.processors import TemplateProcessing

from common.console import UserError
from common.files import new_folder, read_json, write_json
from model.device import shapes_alone
from model.encoder import POOLINGS, Embedding, Encoder, new_encoder
from model.encoder_config import BERT_FAMILIES
from model.safetensors_file import read_safetensors
from model.static import MODEL_TYPE, StaticEncoder, load_static, save_static
from model.tokenizer import Tokenizer
from model.weights import fill, locate, optional_json, save_network, tokenizer_files, weights_sha256

# Prefixes that models were trained with but that their files omit: a pattern for the last part of the model's name, and
# the texts before a query and a passage. The first match counts.
PREFIXES = {
    # huggingface.co/intfloat/e5-small-v2, README: "Each input text should start with "query: " or "passage: ""
    r"\be5-(?!.*instruct)": ("query: ", "passage: "),
    # huggingface.co/BAAI/bge-small-en-v1.5, README, table of models: query instruction for retrieval
    r"^bge-(small|base|large)-en\b": ("Represent this sentence for searching relevant passages: ", ""),
    # huggingface.co/nomic-ai/modernbert-embed-base, README
    r"^modernbert-embed\b": ("search_query: ", "search_document: "),
}
# Models whose prefix describes the task, which only the user knows.
NEEDS_PREFIX = {r"\be5-": "--query-prefix $'Instruct: YOUR TASK\\nQuery: ' --passage-prefix ''"}

# Prefix of tensor names when the network was saved together with a head, and the names of heads.
NETWORK_PREFIX = re.compile(r"^(bert|roberta|model)\.")
HEADS = ("pooler.", "cls.", "lm_head.", "head.", "decoder.")
BUFFERS = (".position_ids", ".inv_freq")

# sentence_bert_config.json: keys that are read or have no influence, and keys implemented only at one value.
LENGTH_KEYS = {"max_seq_length", "do_lower_case", "modality_config", "unpad_inputs"}
LENGTH_ONLY = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}

POOLING_FLAGS = {  # of older files; newer ones have a single key, pooling_mode
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}


def load_encoder(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    pooling: str | None = None,
    query_prefix: str | None = None,
    passage_prefix: str | None = None,
    max_length: int | None = None,
) -> Encoder:
    """An embedding model with its tokenizer.

    Pooling, prefixes and length come from the model's own files (see above), prefixes that these omit from PREFIXES by
    the model's name; arguments override both.
    UserError if pooling or prefixes are unknown, and for a module or a setting that is not implemented.
    """
    source = locate(name)
    if source.is_file():
        raise UserError(f"{name} is a .gguf file, which cannot hold an encoder; give a folder or a hub id")

    if optional_json(source / "config.json").get("model_type") == MODEL_TYPE:
        return load_static(
            source, name, device=device, pooling=pooling, query_prefix=query_prefix, passage_prefix=passage_prefix,
            max_length=max_length,
        )  # fmt: skip

    # the network, without memory yet
    with shapes_alone():
        encoder = new_encoder(read_json(source / "config.json"))

    # what turns a text into ids, and hidden states into a vector
    encoder.tokenizer = Tokenizer(*tokenizer_files(source), embedding_rows=encoder.config.vocab_size)
    query, passage = _prefixes(source, name, query_prefix, passage_prefix)
    encoder.embedding = Embedding(
        pooling=_pooling(source / _pooling_folder(source) / "config.json", pooling),
        query_prefix=query,
        passage_prefix=passage,
        max_length=_max_length(source, encoder, max_length),
        lower_case=bool(optional_json(_text_settings(source)).get("do_lower_case")),
    )

    # its weights, without the prefix and the head of a larger model
    tensors = (
        (NETWORK_PREFIX.sub("", key), tensor) for key, tensor in read_safetensors(source, dtype=dtype, device=device)
    )
    fill(encoder, tensors, dtype=dtype, device=device, where=source, skip=_is_leftover)
    encoder.source = name
    encoder.weights_sha256 = weights_sha256(source)
    return encoder.eval()


def save_encoder(encoder: Encoder, folder: Path | str) -> None:
    """Write a folder that sentence-transformers and load_encoder can load."""
    if isinstance(encoder, StaticEncoder):
        save_static(encoder, folder)
        return
    embedding = encoder.embedding
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    with new_folder(folder) as target:
        # the network
        save_network(encoder, encoder.config.raw, target)
        _save_tokenizer(encoder.tokenizer, target)

        # what follows it: pooling by exactly one flag, then unit length
        write_json(
            target / "modules.json",
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for i, (path, kind) in enumerate(modules)
            ],
        )
        (target / "1_Pooling").mkdir()
        flags = {flag: pooling == embedding.pooling for flag, pooling in POOLING_FLAGS.items()}
        write_json(
            target / "1_Pooling" / "config.json", {"word_embedding_dimension": encoder.config.hidden_size, **flags}
        )
        (target / "2_Normalize").mkdir()

        # how a text is read: length, case, prefixes
        write_json(
            target / "sentence_bert_config.json",
            {"max_seq_length": embedding.max_length, "do_lower_case": embedding.lower_case},
        )
        prompts = {"query": embedding.query_prefix, "document": embedding.passage_prefix}
        write_json(
            target / "config_sentence_transformers.json",
            {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
        )


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """The tokenizer, with a post-processor that also adds what add_bos_token and add_eos_token ask for.

    transformers 5 ignores these two settings: sentence-transformers would then pool a different token.
    """
    tokenizer.save(folder)
    # a copy: the post-processor is for the file only
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    around = [tokenizer.prefix_ids, tokenizer.suffix_ids]
    if sum(map(len, around)) > backend.num_special_tokens_to_add(is_pair=False):
        # "[CLS] $A [SEP]", and for a pair "[CLS] $A [SEP] [CLS]:1 $B:1 [SEP]:1"
        before, after = ([str(backend.id_to_token(i)) for i in ids] for ids in around)
        pieces = [*before, "$A", *after]
        pair = [*pieces, *(f"{piece}:1" for piece in [*before, "$B", *after])]
        special = [(token, backend.token_to_id(token)) for token in dict.fromkeys(before + after)]
        backend.post_processor = TemplateProcessing(single=pieces, pair=pair, special_tokens=special)
        backend.save(str(folder / "tokenizer.json"))


def _is_leftover(name: str) -> bool:
    """Heads and old buffers, which do not contribute to an embedding."""
    return name.startswith(HEADS) or name.endswith(BUFFERS)


def _text_settings(source: Path) -> Path:
    """sentence_bert_config.json, or its early name for other families."""
    paths = [source / f"sentence_{family}_config.json" for family in BERT_FAMILIES]
    return next((path for path in paths if path.is_file()), paths[0])


def _pooling_folder(source: Path) -> str:
    """modules.json's pooling folder. UserError unless it lists Transformer, Pooling and perhaps Normalize."""
    path = source / "modules.json"
    if not path.is_file():
        return "1_Pooling"
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        paths, types = [str(module["path"]) for module in modules], [str(module["type"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a list of modules ({error!r})") from None

    # only sentence-transformers' own modules, in the one order that `Encoder` computes
    kinds = [name.rpartition(".")[2] for name in types]
    for name, kind in zip(types, kinds, strict=True):
        if kind not in ("Transformer", "Pooling", "Normalize") or not name.startswith("sentence_transformers."):
            raise UserError(f"{path}: the module {name} is not implemented")
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UserError(f"{path}: {', '.join(kinds)} is not implemented in this order")
    # a path from a downloaded file could lead anywhere
    if not (source / paths[1]).resolve().is_relative_to(source.resolve()):
        raise UserError(f"{path}: {paths[1]} is outside the folder")

    # search compares unit vectors: their dot product is the cosine
    similarity = optional_json(source / "config_sentence_transformers.json").get("similarity_fn_name")
    if similarity not in (None, "cosine") and not (similarity == "dot" and kinds[-1] == "Normalize"):
        raise UserError(f"{source}: vectors compared by similarity_fn_name={similarity!r} are not implemented")
    return paths[1]


def _pooling(path: Path, given: str | None) -> str:
    """The pooling: as given, or from 1_Pooling/config.json in its older or newer form."""
    config = optional_json(path)
    if config.get("include_prompt") is False:
        raise UserError(f"{path}: include_prompt=false, a prefix that is not pooled, is not implemented")
    if given is not None:
        return given
    # older files have a flag for each kind, newer ones a name or a list of names
    flags = [flag for flag, on in config.items() if on is True and flag.startswith("pooling_mode_")]
    modes = config.get("pooling_mode") or [POOLING_FLAGS.get(flag, flag) for flag in flags]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        problem = f"is {' + '.join(map(str, modes))}, which is not supported" if modes else "is missing"
        raise UserError(f"{path}: the pooling {problem}; give --pooling {' or '.join(POOLINGS)}")
    return modes[0]


def _prefixes(source: Path, name: str, query: str | None, passage: str | None) -> tuple[str, str]:
    """The texts before a query and a passage: as given, or from the files' prompts, or from PREFIXES."""
    settings = optional_json(source / "config_sentence_transformers.json")
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise UserError(f"{source}/config_sentence_transformers.json: prompts={prompts!r}; expected names with texts")
    # the files' prompts, by the names in use
    default = prompts.get(settings.get("default_prompt_name"))
    of_query = prompts.get("query", default)
    of_passage = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), default)

    # a side that was not given: what the model's name tells counts only if the files have no prompts at all
    if None in (query, passage):
        called = Path(str(name).lower()).name
        if not prompts and (known := _first_match(PREFIXES, called)):
            of_query, of_passage = known
        elif not prompts and (needed := _first_match(NEEDS_PREFIX, called)):
            raise UserError(f"{name} was trained with prefixes that its files omit; give {needed}")
        if any(prompts.values()) and of_query is None and of_passage is None:
            raise UserError(
                f"{source}: its prompts are named {', '.join(prompts)}, none of them query or document; "
                "give --query-prefix and --passage-prefix"
            )
    return (of_query or "") if query is None else query, (of_passage or "") if passage is None else passage


def _first_match(table: dict, called: str):
    return next((value for pattern, value in table.items() if re.search(pattern, called)), None)


def _max_length(source: Path, encoder: Encoder, given: int | None) -> int:
    """The maximum length in tokens: as given, or from the files; at most the network's number of positions."""
    path = _text_settings(source)
    settings = optional_json(path)
    for key, value in settings.items():
        if key not in LENGTH_KEYS and value not in (None, False, {}, LENGTH_ONLY.get(key)):
            raise UserError(f"{path}: {key}={value!r} is not implemented")

    # room for the special tokens and one of the text at least; at most the network's positions
    most, of_tokenizer = encoder.config.max_tokens, encoder.tokenizer.settings.get("model_max_length")
    length = (settings.get("max_seq_length") or min(of_tokenizer or most, most)) if given is None else given
    least = len(encoder.tokenizer.prefix_ids) + len(encoder.tokenizer.suffix_ids) + 1
    if not isinstance(length, int) or not least <= length <= most:
        raise UserError(f"{source}: a maximum length of {length} tokens; this model supports {least} to {most}")
    return length
