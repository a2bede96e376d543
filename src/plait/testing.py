"""plait's own invariants, for methods that come from outside."""
