"""Number formats: arithmetic without a graph."""
