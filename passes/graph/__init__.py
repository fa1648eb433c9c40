"""Reading, running and rewriting a module."""
