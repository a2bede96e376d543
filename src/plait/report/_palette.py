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
}
#: Lines of many members. Of ten colours that stand out from the page, those were sought whose closest two are
#: farthest apart in OKLab, to eyes of every colour vision (Machado, Oliveira & Fernandes 2009).
MEMBERS = 10
_ON_LIGHT = (
    "#5792fc",
    "#b63259",
    "#6c8f00",
    "#8b1bfa",
    "#06788f",
    "#b58b7d",
    "#fe29c9",
    "#385207",
    "#2224c0",
    "#603072",
)
_ON_DARK = (
    "#1cc7f6",
    "#f5929a",
    "#89b902",
    "#af38ff",
    "#67ffa9",
    "#b17015",
    "#fb0390",
    "#ffdc0a",
    "#867fc9",
    "#dce5ff",
)
LIGHT |= {f"member{i}": colour for i, colour in enumerate(_ON_LIGHT)}
DARK |= {f"member{i}": colour for i, colour in enumerate(_ON_DARK)}
#: From little to much: lighter to darker, so that it reads in grey too.
RISING = ("#f3f7fa", "#c6dbea", "#83b4d3", "#3d86b4", "#10588a", "#063a60")
#: From −1 through 0 to 1.
SIGNED = ("#b34a00", "#eda56a", "#f7f7f5", "#7db3d6", "#045a8d")


def kind(name: str) -> str:
    """The role of a kind of model; any that is not known is a merge."""
    return name if name in ("base", "student", "joint", "ensemble", "federated", "experts") else "merge"
