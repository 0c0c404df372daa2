"""What a network is: configuration, decoder, encoder, loss, weights, tokenizer, sampling. Imports nothing else here."""

from model.encoder_files import load_encoder, save_encoder
from model.generate import generate
from model.weights import load_decoder, load_tokenizer, save_decoder

__all__ = ["generate", "load_decoder", "load_encoder", "load_tokenizer", "save_decoder", "save_encoder"]
