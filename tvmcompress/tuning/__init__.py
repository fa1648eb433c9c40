"""Autotuning: measuring candidate schedules of a model's functions and keeping the best in a tuning log."""
