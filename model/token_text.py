"""The exact text of individual tokens, for looking at them one by one: nothing is lost or merged."""

from __future__ import annotations

import re

from model.tokenizer import Tokenizer

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's, for what its vocabulary cannot spell
LONE_BYTE = re.compile("[\udc80-\udcff]")  # how "surrogateescape" decodes a byte that belongs to no character
REPLACEMENT = "\ufffd"


def exact_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of ids: leading spaces and control tokens as they are, bytes that form no character as <0xE6>.

    `Tokenizer.decode` writes U+FFFD for each part of a character, so that all such tokens look the same. An id without
    a token (a row that only pads the embedding) becomes <unused 151700>.
    """
    data = b"".join(_bytes(tokenizer, token) for token in ids)
    return LONE_BYTE.sub(lambda byte: f"<0x{ord(byte[0]) - 0xDC00:02X}>", data.decode("utf-8", "surrogateescape"))


def _bytes(tokenizer: Tokenizer, token: int) -> bytes:
    # whole characters
    text = tokenizer.decode([token], keep_special=True)
    if text and REPLACEMENT not in text:
        return text.encode()

    # a part of a character: by its entry in the vocabulary, as SentencePiece or byte-level BPE writes it
    piece = tokenizer.backend.id_to_token(token)
    if piece is None:
        return f"<unused {token}>".encode()
    if byte := BYTE_TOKEN.fullmatch(piece):
        return bytes([int(byte[1], 16)])
    if all(character in BYTES for character in piece):
        return bytes(BYTES[character] for character in piece)
    return piece.encode()


def _byte_alphabet() -> dict[str, int]:
    """How byte-level BPE writes each byte: as itself if Latin-1 prints it, else as the next character from U+0100 on.

    GPT-2 (Radford et al. 2019); tokenizers' ByteLevel.
    """
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTES = _byte_alphabet()
