"""Tuning logs that come with the package, one folder per target, read by every build."""
