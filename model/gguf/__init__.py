"""llama.cpp's file format, in and out: header, the layout of settings and tensors, tokenizer, reading, writing."""
