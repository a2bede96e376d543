"""What came out, told: one HTML page, its pictures and its tables, from tidy tables."""

from plait.report._references import bibtex
from plait.report._results import Cost, Curve, Picture, Reached, Results, Setting, Similarity
from plait.report._settings import Edge, edges
from plait.report._shares import Expectation, expectations
from plait.report._write import write_report

__all__ = [
    "Cost",
    "Curve",
    "Edge",
    "Expectation",
    "Picture",
    "Reached",
    "Results",
    "Setting",
    "Similarity",
    "bibtex",
    "edges",
    "expectations",
    "write_report",
]
