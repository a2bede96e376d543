"""Pictures of letters and signs, drawn from fonts: one task a script, its splits by font."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from plait.errors import MissingExtra
from plait.tasks._examples import Columns
from plait.tasks._find import find
from plait.tasks._kept import code_digest, kept
from plait.tasks._task import Task
from plait.tasks.suites._sources import DEJAVU, FREEFONT, STIX

SIDE = 28
#: Drawn this many times larger, so that turning and shrinking leave smooth edges.
_FINE, _EM = 3, 20
#: Split → fonts; no font is in two splits.
_PLAIN: Mapping[str, tuple[str, ...]] = {
    "train": (
        "DejaVuSans",
        "DejaVuSans-BoldOblique",
        "DejaVuSansMono",
        "DejaVuSansMono-Oblique",
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
    ),
    "validation": ("DejaVuSansMono-BoldOblique",),
    "test": ("DejaVuSerif", "DejaVuSansMono-Bold"),
    "calibration": ("DejaVuSans-Oblique",),
    "adaptation": ("DejaVuSerif-BoldItalic",),
}
_WITH_STIX = {
    **_PLAIN,
    "test": (
        *_PLAIN["test"],
        "STIXGeneral",
        "STIXGeneralItalic",
        "STIXGeneralBol",
        "STIXGeneralBolIta",
    ),
}
_WITH_UPRIGHT_STIX = {**_PLAIN, "test": (*_PLAIN["test"], "STIXGeneral", "STIXGeneralBol")}
_FREE_HEBREW = {
    "train": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "FreeMono", "FreeSans"),
    "validation": ("FreeSerifBold",),
    "test": ("FreeSerif", "FreeSansBold"),
    "calibration": ("DejaVuSans-BoldOblique",),
    "adaptation": ("FreeMonoBold",),
}
_FREE_ARABIC = {
    "train": ("DejaVuSans", "DejaVuSansMono-Bold", "FreeSerif"),
    "validation": ("DejaVuSansMono",),
    "test": ("DejaVuSans-Bold",),
    "calibration": ("FreeMono",),
    "adaptation": ("FreeSerifBold",),
}


@dataclass(frozen=True)
class Script:
    """What is drawn, and with which fonts; `ranges` are first and last code points."""

    ranges: tuple[tuple[int, int], ...]
    fonts: Mapping[str, tuple[str, ...]]
    about: str


LATIN = Script(((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)), _PLAIN, "Latin letters and digits")
SCRIPTS = {
    "greek": Script(((0x391, 0x3A1), (0x3A3, 0x3A9), (0x3B1, 0x3C9)), _WITH_STIX, "Greek letters"),
    "cyrillic": Script(((0x410, 0x44F),), _WITH_STIX, "Cyrillic letters"),
    "armenian": Script(((0x531, 0x556), (0x561, 0x586)), _PLAIN, "Armenian letters"),
    "georgian": Script(((0x10D0, 0x10F0),), _PLAIN, "Georgian letters"),
    "phonetic": Script(((0x250, 0x2AF),), _WITH_STIX, "signs of the phonetic alphabet"),
    "mathematics": Script(((0x2200, 0x22FF),), _WITH_UPRIGHT_STIX, "mathematical operators"),
    "arrows": Script(((0x2190, 0x21FF),), _WITH_UPRIGHT_STIX, "arrows"),
    "hebrew": Script(((0x5D0, 0x5EA),), _FREE_HEBREW, "Hebrew letters"),
    "arabic": Script(((0x621, 0x63A), (0x641, 0x64A)), _FREE_ARABIC, "Arabic letters, each by itself"),
}
#: Scripts that need more fonts than matplotlib carries.
NEEDS_FREEFONT = ("hebrew", "arabic")


def glyph_task(
    name: str,
    script: Script,
    *,
    features: int,
    sizes: Mapping[str, int],
    data: str | Path | None = None,
) -> Task:
    """The task of telling a script's letters apart.

    Args:
        name: of the task.
        script: what is drawn.
        features: what the body gives.
        sizes: split → how many pictures.
        data: a folder that files are looked for in first.

    Raises:
        InputError: fonts can't be had.
        MissingExtra: what draws is not installed.
    """
    files = _font_files(script, data)
    letters = _letters(script, files)

    def draw(folder: Path) -> None:
        for split, fonts in script.fonts.items():
            seed = zlib.crc32(f"{name}/{split}".encode())
            drawn = _drawn([files[font] for font in fonts], letters, sizes[split], seed)
            save_file(drawn, folder / f"{split}.safetensors")

    key = hashlib.blake2b(
        repr((name, letters, script.fonts, dict(sizes))).encode(), digest_size=8
    ).hexdigest()
    folder = kept(f"pictures/{name}-{key}-{code_digest(__file__)}-{_pillow_version()}", draw)
    splits = {
        split: _columns(load_file(folder / f"{split}.safetensors"), fonts)
        for split, fonts in script.fonts.items()
    }
    return Task(
        name,
        {split: _unlabelled(made) if split in UNLABELLED else made for split, made in splits.items()},
        head=zero_head(features, len(letters)),
        semi_synthetic=True,
        about=f"{script.about}, {len(letters)} classes, drawn from fonts; those tested with are unseen",
        classes=tuple(letters),
    )


UNLABELLED = ("calibration", "adaptation")


def _columns(drawn: Mapping[str, torch.Tensor], fonts: Sequence[str]) -> Columns:
    columns = {"input": drawn["input"].float().div_(255).unsqueeze(1), "label": drawn["label"]}
    return Columns(columns, [fonts[int(font)] for font in drawn["font"]])


def _unlabelled(examples: Columns) -> Columns:
    return Columns({"input": examples.columns["input"]}, examples.source)


def zero_head(features: int, classes: int) -> nn.Linear:
    """A linear head that says nothing yet: the same for whoever makes it."""
    head = nn.Linear(features, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _font_files(script: Script, data: str | Path | None) -> dict[str, Path]:
    """Name of a font → its file, for all that a script needs."""
    needed = [font for fonts in script.fonts.values() for font in fonts]
    found = {}
    for source, start in ((DEJAVU, "DejaVu"), (STIX, "STIX"), (FREEFONT, "Free")):
        if any(font.startswith(start) for font in needed):
            found |= {path.stem: path for path in source.paths(find(source, data))}
    return {font: found[font] for font in needed}


def _letters(script: Script, files: Mapping[str, Path]) -> list[str]:
    """The characters that every font has."""
    try:
        from fontTools.ttLib import TTFont
    except ImportError as error:
        raise MissingExtra("fonttools", "tasks", "drawing glyphs") from error
    common = {code for first, last in script.ranges for code in range(first, last + 1)}
    for path in files.values():
        with TTFont(path) as font:
            common &= set(font.getBestCmap() or {})
    return [chr(code) for code in sorted(common)]


def _drawn(files: Sequence[Path], letters: Sequence[str], count: int, seed: int) -> dict[str, torch.Tensor]:
    """So many pictures, letters and fonts in equal shares, each turned, sheared, scaled, moved."""
    random = np.random.default_rng(seed)
    order = [random.permutation(len(letters)) for _ in range(-(-count // len(letters)))]
    labels = np.concatenate(order)[:count]
    fonts = random.permutation(np.arange(count) % len(files))
    plain: dict[tuple[int, int], Any] = {}
    pictures = np.empty((count, SIDE, SIDE), np.float32)
    for row in range(count):
        font, label = int(fonts[row]), int(labels[row])
        if (font, label) not in plain:
            plain[font, label] = _plain(files[font], letters[label])
        pictures[row] = _varied(plain[font, label], random)
    pictures += 0.1 * random.standard_normal(pictures.shape, np.float32)
    grey = (pictures.clip(0, 1) * 255).round().astype(np.uint8)
    found = {"input": grey, "label": labels.astype(np.int64), "font": fonts.astype(np.int64)}
    return {name: torch.from_numpy(column) for name, column in found.items()}


def _pillow_version() -> str:
    """What draws; another version may draw a little otherwise."""
    try:
        import PIL
    except ImportError as error:
        raise MissingExtra("pillow", "tasks", "drawing glyphs") from error
    return PIL.__version__


def _plain(path: Path, letter: str) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    side = SIDE * _FINE
    picture = Image.new("L", (side, side))
    font = ImageFont.truetype(str(path), _EM * _FINE)
    ImageDraw.Draw(picture).text((side / 2, side / 2), letter, fill=255, font=font, anchor="mm")
    return picture


def _varied(picture: Any, random: np.random.Generator) -> NDArray[np.float32]:
    from PIL import Image

    turn, shear = random.uniform(-0.2, 0.2), random.uniform(-0.2, 0.2)
    wide, high = random.uniform(0.85, 1.2, 2)
    move = random.uniform(-2, 2, 2) * _FINE
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag([wide, high])
    middle = SIDE * _FINE / 2
    shift = middle - matrix @ (middle + move)
    numbers = (*matrix[0], shift[0], *matrix[1], shift[1])
    turned = picture.transform(
        picture.size, Image.Transform.AFFINE, tuple(map(float, numbers)), Image.Resampling.BILINEAR
    )
    return (np.asarray(turned.reduce(_FINE)) / 255).astype(np.float32)
