"""Glyphs: one network reads scripts it has never seen, handwritten digits, and clothes.

pip alone brings nine tasks: two of real handwriting and seven drawn from the fonts inside matplotlib.
Debian's FreeFont adds Hebrew and Arabic, its Fashion-MNIST two tasks of clothes. The base has read Latin
letters only, in fonts that no task is tested with.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from plait.tasks import _networks
from plait.tasks._gather import gather
from plait.tasks._networks import PictureNet
from plait.tasks._suite import Suite
from plait.tasks._trained import Recipe, trained
from plait.tasks.suites._glyphs import LATIN, SCRIPTS, glyph_task
from plait.tasks.suites._pictures import FASHION_PARTS, digits_task, fashion_task, mnist_task

FEATURES = 64
SIZES = {"train": 3000, "validation": 400, "test": 1000, "calibration": 256, "adaptation": 512}
_BASE = Recipe(steps=400, batch_size=128)
_BASE_SIZES = {"train": 12000, "validation": 10, "test": 10, "calibration": 10, "adaptation": 10}


def load(data: str | Path | None = None, tasks: Sequence[str] | None = None) -> Suite:
    """The suite; see `plait.tasks.load_suite`."""
    drawn = {
        name: partial(glyph_task, name, script, features=FEATURES, sizes=SIZES, data=data)
        for name, script in SCRIPTS.items()
    }
    clothes = {name: partial(fashion_task, name, FEATURES, SIZES, data) for name in FASHION_PARTS}
    hand = {"digits": partial(digits_task, FEATURES, data), "mnist": partial(mnist_task, FEATURES, data)}
    found = gather("glyphs", {**hand, **drawn, **clothes}, tasks)
    return Suite("glyphs", base=partial(base, data), about=(__doc__ or "").strip(), **found)


def base(data: str | Path | None = None) -> nn.Module:
    """A network that has learned to read Latin letters and digits."""
    latin = glyph_task("latin", LATIN, features=FEATURES, sizes=_BASE_SIZES, data=data)
    return trained("glyphs", partial(PictureNet, FEATURES), latin, _BASE, _networks.__file__)
