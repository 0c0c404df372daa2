"""A tokenizer in .gguf metadata, both directions: tokens, their types, merges or scores, and the pre-tokenizer.

llama.cpp stores only the pre-tokenizer's name ("pre") and has the regular expressions built in. Those verified against
a real tokenizer are here as in tokenizer.json; any other name is refused. There are two kinds of BPE: "gpt2" merges
pairs of bytes by rank; "llama" (SentencePiece) merges pairs of characters by the score of the result, falls back to
bytes, and writes a space as ▁.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import tokenizers

from common.console import UserError
from model.tokenizer import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
PRE_KEY = "tokenizer.ggml.pre"
ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _split(*expressions: str) -> list[dict]:
    return [{"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": False} for e in expressions]


DIGITS = {"type": "Digits", "individual_digits": True}
GPT2_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
TO_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PRE = {  # tokenizer.ggml.pre -> pre-tokenizers of tokenizer.json
    "gpt-2": [GPT2_WORDS],
    "smollm": [DIGITS, GPT2_WORDS],
    "qwen2": [*_split(CONTRACTIONS + r"\p{N}" + SIGNS), TO_BYTES],
    "llama-bpe": [*_split(CONTRACTIONS + r"\p{N}{1,3}" + SIGNS), TO_BYTES],
    "tekken": [
        *_split(
            rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|"
            r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        TO_BYTES,
    ],
    "deepseek-coder": [*_split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"), DIGITS, TO_BYTES],
    "deepseek-v3": [
        *_split(
            r"\p{N}{1,3}",
            "[一-龥\u3040-ゟ゠-ヿ]+",
            r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
            "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
        ),
        TO_BYTES,
    ],
}
NORMALIZERS = {"qwen2": [{"type": "NFC"}]}  # missing in llama.cpp, which encodes e + a combining accent differently
WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")  # a word that is a token is not merged from its bytes
BEGIN_WITH_BOS = ("llama-bpe", "tekken")  # unless add_bos_token says otherwise
SAME = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm", "deepseek-r1-qwen": "qwen2"}
SPACE = "▁"
TO_SPACE_SIGN = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
PREPEND = {"type": "Prepend", "prepend": SPACE}


def read_tokenizer(metadata: dict) -> tuple[tokenizers.Tokenizer, dict, tuple[int, ...]]:
    """The tokenizer, the equivalent of tokenizer_config.json, and the end-of-text ids.

    UserError for an unknown pre-tokenizer, KeyError for a missing entry.
    """
    # the model and its pre-tokenizer: tokenizer.json
    kind = metadata["tokenizer.ggml.model"]
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    if kind == "gpt2":
        definition = _byte_level(metadata, tokens, types)
    elif kind == "llama":
        definition = _sentencepiece(metadata, tokens, types)
    else:
        raise UserError(f"tokenizer {kind!r} is not supported; supported are gpt2 and llama")
    definition["added_tokens"] = [
        {"id": i, "content": token, "special": type_ == CONTROL, **ADDED}
        for i, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ in (CONTROL, USER_DEFINED)
    ]

    # the BOS before a text
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in SPECIAL_TOKENS.items()}
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", kind == "llama" or metadata.get(PRE_KEY) in BEGIN_WITH_BOS)
    if add_bos and ids["bos_token"] is not None:
        definition["post_processor"] = _bos_first(tokens[ids["bos_token"]], ids["bos_token"])

    # tokenizer_config.json
    settings = {name: tokens[i] for name, i in ids.items() if i is not None and i < len(tokens)}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",  # uses tokenizer.json as it is
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(f"{metadata['general.architecture']}.context_length"),
        "chat_template": metadata.get("tokenizer.chat_template"),
    }

    # what ends a text: end of sequence, of a turn, of a message
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    backend = tokenizers.Tokenizer.from_str(json.dumps(definition))
    return backend, settings, tuple(dict.fromkeys(end for end in ends if end is not None))


def _byte_level(metadata: dict, tokens: list[str], types: list[int]) -> dict:
    pre = metadata.get(PRE_KEY, "default")
    pre = SAME.get(pre, pre)
    if pre not in PRE:
        raise UserError(f"tokenizer gpt2/{pre} is not supported; supported are {', '.join([*PRE, *SAME])}")
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": NORMALIZERS.get(pre, [])},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"trim_offsets": False, **step} for step in PRE[pre]]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "vocab": {t: i for i, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind != UNUSED},
            "merges": [merge.split(" ", 1) for merge in metadata["tokenizer.ggml.merges"]],
            "ignore_merges": pre in WHOLE_WORDS_FIRST,
        },
    }


def _sentencepiece(metadata: dict, tokens: list[str], types: list[int]) -> dict:
    prepends = metadata.get("tokenizer.ggml.add_space_prefix", True)
    scores = metadata["tokenizer.ggml.scores"]
    pieces = {t: i for i, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind != UNUSED}

    # merges by rank, as tokenizer.json wants them: every way to cut a token into two, the highest score first
    mergeable = {t: i for t, i in pieces.items() if types[i] in (NORMAL, USER_DEFINED)}
    merges = [
        (scores[i], t[:cut], t[cut:])
        for t, i in mergeable.items()
        for cut in range(1, len(t))
        if t[:cut] in mergeable and t[cut:] in mergeable
    ]
    merges.sort(key=lambda merge: (-merge[0], -len(merge[1])))

    # ids to text: ▁ to spaces, bytes to characters, without the space that was put first
    unknown = next((token for token, kind in zip(tokens, types, strict=True) if kind == UNKNOWN), None)
    steps = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"}]
    steps += [{"type": "Fuse"}, *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prepends else [])]
    return {
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": [*([PREPEND] if prepends else []), TO_SPACE_SIGN]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {
            "type": "BPE",
            "vocab": pieces,
            "merges": [merge[1:] for merge in merges],
            "byte_fallback": True,
            "fuse_unk": True,
            "unk_token": unknown,
        },
    }


def _bos_first(token: str, id_: int) -> dict:
    bos, text = {"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    pair = [bos, text, {"Sequence": {"id": "B", "type_id": 0}}]
    tokens = {token: {"id": token, "ids": [id_], "tokens": [token]}}
    return {"type": "TemplateProcessing", "single": [bos, text], "pair": pair, "special_tokens": tokens}


def tokenizer_metadata(tokenizer: Tokenizer, vocab_size: int) -> dict[str, object]:
    """The metadata of a tokenizer, padded with unused tokens to vocab_size. UserError if GGUF cannot hold it."""
    definition = json.loads(tokenizer.backend.to_str())
    kind = _kind(definition)
    names = {i: token for token, i in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
    if max(names) >= vocab_size:
        raise UserError(f"the tokenizer has a token {max(names)}, but the model only {vocab_size} rows")

    # a token and its type for each row of the embedding
    tokens = [names.get(i, f"[PAD{i}]") for i in range(vocab_size)]
    types = [NORMAL if i in names else UNUSED for i in range(vocab_size)]
    for token in definition["added_tokens"]:
        types[token["id"]] = CONTROL if token["special"] or _looks_special(token["content"]) else USER_DEFINED

    # byte-level BPE has merges, SentencePiece scores and bytes as tokens
    metadata = {"tokenizer.ggml.model": kind.model, PRE_KEY: kind.pre, "tokenizer.ggml.tokens": tokens}
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in definition["model"]["merges"]]
    if kind.model == "gpt2":
        metadata["tokenizer.ggml.merges"] = [" ".join(merge) for merge in merges]
    else:
        metadata["tokenizer.ggml.scores"] = _scores(merges, tokens)
        metadata["tokenizer.ggml.add_space_prefix"] = kind.prepends_space
        for i, token in enumerate(tokens):
            if token == definition["model"]["unk_token"]:
                types[i] = UNKNOWN
            elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                types[i] = BYTE
    metadata["tokenizer.ggml.token_type"] = types
    return metadata | _special_ids(tokenizer)


def _looks_special(token: str) -> bool:
    """llama.cpp's conversion treats these as control tokens even if tokenizer.json does not."""
    return token.startswith(("<|", "<｜")) and token.endswith(("|>", "｜>"))


def _special_ids(tokenizer: Tokenizer) -> dict[str, object]:
    prefix = tokenizer.prefix_ids
    ids = {}
    for name, key in SPECIAL_TOKENS.items():
        value = tokenizer.settings.get(name)
        id_ = tokenizer.backend.token_to_id(value["content"] if isinstance(value, dict) else value) if value else None
        if id_ is not None:
            ids[f"tokenizer.ggml.{key}_token_id"] = id_
    if len(prefix) > 1 or (prefix and prefix[0] != ids.setdefault("tokenizer.ggml.bos_token_id", prefix[0])):
        raise UserError(f"the tokenizer adds the ids {prefix} to a text; GGUF supports only a BOS")
    ids["tokenizer.ggml.add_bos_token"] = bool(prefix)
    ids["tokenizer.ggml.eos_token_id"] = tokenizer.eos_id
    others = sorted(tokenizer.stop_ids - {tokenizer.eos_id})  # llama.cpp has two more, by these names
    ids |= {f"tokenizer.ggml.{key}_token_id": id_ for key, id_ in zip(("eot", "eom"), others, strict=False)}
    return ids


def _scores(merges: list[list[str]], tokens: list[str]) -> list[float]:
    """SentencePiece merges the pair with the highest-scoring result: here, that of the earliest merge."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(merges):
        rank.setdefault("".join(merge), i)
    return [float(-rank.get(token, len(merges))) for token in tokens]


class _Kind(NamedTuple):
    model: str  # tokenizer.ggml.model
    pre: str  # tokenizer.ggml.pre
    prepends_space: bool


def _kind(definition: dict) -> _Kind:
    """llama.cpp's kind of a tokenizer. UserError if it has none."""
    model = definition["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UserError(f"a {model['type']} tokenizer cannot be written as GGUF here, only BPE")
    normalizers = _steps(definition["normalizer"], "normalizers")
    steps = _steps(definition["pre_tokenizer"], "pretokenizers")
    if model["byte_fallback"]:
        # Gemma 3's splits at spaces, but its normalizer leaves none
        nothing_to_cut = all(step["type"] == "Split" and step["pattern"] == {"String": " "} for step in steps)
        if nothing_to_cut and normalizers in ([TO_SPACE_SIGN], [PREPEND, TO_SPACE_SIGN]):
            return _Kind("llama", "default", PREPEND in normalizers)
    else:
        for pre, known in PRE.items():
            if (
                steps == known
                and normalizers == NORMALIZERS.get(pre, [])
                and bool(model.get("ignore_merges")) == (pre in WHOLE_WORDS_FIRST)
            ):
                return _Kind("gpt2", pre, False)
    raise UserError(
        "this tokenizer's pre-tokenizer cannot be written as GGUF here; supported are "
        f"{', '.join(PRE)} and SentencePiece, this one is {json.dumps(definition['pre_tokenizer'])[:200]}"
    )


def _steps(part: dict | None, inner: str) -> list[dict]:
    """A normalizer or pre-tokenizer as a list of steps, without settings that only affect offsets."""
    steps = [] if part is None else part[inner] if part["type"] == "Sequence" else [part]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
