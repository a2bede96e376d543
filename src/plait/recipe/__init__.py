"""The typed recipe."""
