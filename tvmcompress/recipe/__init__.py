"""What to do with a model, as data."""
