"""Patch-based execution of the first layers, as in MCUNet: rows at a time, so that less memory lives at once."""
