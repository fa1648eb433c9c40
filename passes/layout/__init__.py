"""From channels-first to channels-last."""
