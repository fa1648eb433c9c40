"""Samples: where they come from, how they become inputs, how they are split."""
