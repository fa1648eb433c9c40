"""Kernels for 64-bit Cortex-A: TensorIR with the vector instructions of Armv8-A."""
