"""Trying kernels: many candidates in one program under an emulator, each checked, then counted."""
