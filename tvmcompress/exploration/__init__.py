"""Searching over what compression may combine, under limits of accuracy, flash and RAM, measured on a target."""
