"""Building, finding what was built, running it, and measuring models side by side."""
