"""The one form that all passes rely on."""
