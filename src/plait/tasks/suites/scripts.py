"""Scripts: one network reads eight scripts, from what pip alone brings.

Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters and mathematical operators, drawn from the
fonts inside matplotlib, and real handwritten digits. The base has read Latin letters only. Fonts that tasks
are tested with are in none of their other splits; Hebrew and Arabic rest on four fonts of one family. Heads
are not trained: a class is the mean of its training examples as the base sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from plait.tasks import _networks
from plait.tasks._gather import gather
from plait.tasks._suite import Suite
from plait.tasks.suites._class_means import with_class_means
from plait.tasks.suites._glyphs import SCRIPTS, Script, glyph_task
from plait.tasks.suites._pictures import mnist_task
from plait.tasks.suites.glyphs import FEATURES, base

SIZES = {"train": 2500, "validation": 300, "test": 800, "calibration": 256, "adaptation": 512}

#: Of matplotlib's fonts, four have Hebrew letters and four Arabic ones.
_HEBREW = {
    "train": ("DejaVuSans", "DejaVuSans-BoldOblique"),
    "validation": ("DejaVuSans-Oblique",),
    "test": ("DejaVuSans-Bold",),
}
_ARABIC = {
    "train": ("DejaVuSans", "DejaVuSansMono-Bold"),
    "validation": ("DejaVuSansMono",),
    "test": ("DejaVuSans-Bold",),
}
_DRAWN = {
    **{name: SCRIPTS[name] for name in ("greek", "cyrillic", "armenian", "georgian")},
    "hebrew": Script(SCRIPTS["hebrew"].ranges, _HEBREW, SCRIPTS["hebrew"].about),
    "arabic": Script(SCRIPTS["arabic"].ranges, _ARABIC, SCRIPTS["arabic"].about),
    "mathematics": SCRIPTS["mathematics"],
}


def load(data: str | Path | None = None, tasks: Sequence[str] | None = None) -> Suite:
    """The suite; see `plait.tasks.load_suite`."""
    makers = {
        name: partial(glyph_task, name, script, features=FEATURES, sizes=SIZES, data=data)
        for name, script in _DRAWN.items()
    }
    makers["mnist"] = partial(mnist_task, FEATURES, data)
    found = gather("scripts", makers, tasks)
    start = base(data)
    found["tasks"] = tuple(with_class_means(task, start, _networks.__file__) for task in found["tasks"])
    return Suite("scripts", base=partial(base, data), about=(__doc__ or "").strip(), **found)
