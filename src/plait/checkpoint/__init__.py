"""Open anything as a read-only mapping of names to lazy tensors; write one safely."""
