"""Choosing by trying: the precision of each layer."""
