"""Autotuning: measuring candidate schedules of a model's functions and keeping the best in a tuning log.

`tvmcompress.tune` is the way in. Nothing is imported here, since every worker process would import it too.
"""
