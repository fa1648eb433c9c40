"""x86-64: shared libraries for the Relax virtual machine, scheduled by template or by tuning log."""
