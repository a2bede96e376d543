"""plait's own invariants, for methods that come from outside."""

from plait.testing._check import BrokenMethod, check_method

__all__ = ["BrokenMethod", "check_method"]
