"""Accuracy, agreement with the original, noise at each layer."""
