"""The networks: configuration, decoder, encoder, loss, weights, tokenizer, sampling."""

from model.encoder_files import load_encoder, save_encoder
from model.generate import Stop, generate
from model.sampling import Sampling
from model.weights import load_decoder, load_tokenizer, save_decoder

__all__ = [
    "Sampling",
    "Stop",
    "generate",
    "load_decoder",
    "load_encoder",
    "load_tokenizer",
    "save_decoder",
    "save_encoder",
]
