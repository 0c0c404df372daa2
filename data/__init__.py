"""What is learnt from: corpora, pairs, masks, packing, indices."""
