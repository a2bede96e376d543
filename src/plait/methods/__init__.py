"""Merging methods and their registry: one file per method or family."""

from plait.methods._catalogue import CONSENSUS, SPARSIFY, pipeline
from plait.methods._registry import METHODS, get_method, package_of
from plait.methods._spec import Cell, Matrix, Method, Option, Order, Settings, Stage, Sums

__all__ = [
    "CONSENSUS",
    "METHODS",
    "SPARSIFY",
    "Cell",
    "Matrix",
    "Method",
    "Option",
    "Order",
    "Settings",
    "Stage",
    "Sums",
    "get_method",
    "package_of",
    "pipeline",
]
