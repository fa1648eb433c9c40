"""The table behind everything that is chosen by name, which other packages fill, too."""
