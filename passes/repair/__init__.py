"""Weights mended from unlabelled samples: after pruning, before quantization and behind it."""
