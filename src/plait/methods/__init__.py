"""Merging methods and their registry."""
