"""llama.cpp's file format: header, metadata, tensors, tokenizer, reading (writing: model/export)."""
