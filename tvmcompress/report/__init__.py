"""What came out, as records, as tables in the terminal and as JSON."""
