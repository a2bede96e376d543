"""Colours that people of every colour vision tell apart (Okabe & Ito 2008), for light and for dark pages.

A figure names a colour by its role; the page takes it from the reader's theme, a PNG from the light one.
"""

from __future__ import annotations

LIGHT = {
    "text": "#1c2126",
    "muted": "#5c6670",
    "line": "#d9dee3",
    "page": "#ffffff",
    "base": "#7b858f",
    "merge": "#0072b2",
    "reference": "#d55e00",
    "joint": "#007a59",
    "ensemble": "#a8527f",
    "federated": "#b57d00",
    "student": "#2f93cc",
    "experts": "#1c2126",
    "right": "#0072b2",
    "on-right": "#ffffff",
    "wrong": "#f9d3b4",
    "on-wrong": "#4a2000",
    "member0": "#0072b2",
    "member1": "#d55e00",
    "member2": "#007a59",
    "member3": "#a8527f",
    "member4": "#b57d00",
    "member5": "#2f93cc",
    "member6": "#1c2126",
    "member7": "#7b858f",
}
DARK = LIGHT | {
    "text": "#e8ecf0",
    "muted": "#9aa5b0",
    "line": "#333b43",
    "page": "#14181c",
    "base": "#97a2ad",
    "merge": "#56b4e9",
    "reference": "#f08a3c",
    "joint": "#2fc79a",
    "ensemble": "#de8fbb",
    "federated": "#e6b422",
    "student": "#b5dcf5",
    "experts": "#e8ecf0",
    "member0": "#56b4e9",
    "member1": "#f08a3c",
    "member2": "#2fc79a",
    "member3": "#de8fbb",
    "member4": "#e6b422",
    "member5": "#8fcbf0",
    "member6": "#e8ecf0",
    "member7": "#97a2ad",
}
#: From little to much: lighter to darker, so that it reads in grey too.
RISING = ("#f3f7fa", "#c6dbea", "#83b4d3", "#3d86b4", "#10588a", "#063a60")
#: From −1 through 0 to 1.
SIGNED = ("#b34a00", "#eda56a", "#f7f7f5", "#7db3d6", "#045a8d")
MEMBERS = 8


def kind(name: str) -> str:
    """The role of a kind of model; any that is not known is a merge."""
    return name if name in ("base", "student", "joint", "ensemble", "federated", "experts") else "merge"
