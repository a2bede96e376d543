"""Whether what a report is made of belongs together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plait.errors import InputError, nearest

if TYPE_CHECKING:
    from plait.report._results import Results


def check_scores(results: Results) -> None:
    """Nothing if there is a table for each seed, all with the same cells, and named models are in them."""
    if not results.scores or not all(len(each) for each in results.scores):
        raise InputError("there are no scores", where="the report", hint="give a table for each seed")
    if len(results.scores) != len(results.seeds):
        counts = f"{len(results.scores)} tables of scores and {len(results.seeds)} seeds"
        raise InputError(f"there are {counts}", where="the report", hint="give a table for each seed")
    first = results.scores[0]
    cells = {row.key for row in first}
    for seed, each in zip(results.seeds, results.scores, strict=True):
        others = {row.key for row in each}
        if others != cells:
            example = " / ".join(sorted(others ^ cells)[0])
            raise InputError(f"not every seed has a score for {example}", where=f"scores of seed {seed}")
        if each.evidence and (each.bootstrap, each.seed) != (first.bootstrap, first.seed):
            hint = "evaluate all with the same `bootstrap` and `seed`"
            raise InputError("the seeds' examples were drawn differently", where=f"seed {seed}", hint=hint)
    lacking = [(m, *t) for m in first.models for t in {k[1:] for k in cells} if (m, *t) not in cells]
    if lacking:
        raise InputError(f"there is no score for {' / '.join(sorted(lacking)[0])}", where="the report")
    named = [("expected", name) for pair in results.expected for name in pair]
    for what, name in (("experts", results.experts), ("reference", results.reference), *named):
        if name is not None and name not in first.models:
            hint = nearest(name, first.models)
            raise InputError(f"`{what}` is `{name}`, which has no scores", where="the report", hint=hint)


def check_arrays(results: Results) -> None:
    """Nothing if curves, pictures and cosines have the shapes that they should have."""
    for curve in results.curves:
        if np.shape(curve.step) != np.shape(curve.value) or np.ndim(curve.step) != 1:
            shapes = f"{np.shape(curve.step)} steps and {np.shape(curve.value)} values"
            raise InputError(f"the curve has {shapes}", where=f"curve of `{curve.member}`")
    for picture in results.pictures:
        if np.ndim(picture.image) != 2:
            what = f"the picture's shape is {np.shape(picture.image)}"
            raise InputError(what, where=f"task `{picture.task}`", hint="give (height, width) of greys")
    alike = results.similarity
    if alike is not None:
        count = len(alike.names)
        if np.shape(alike.cosine) != (count, count):
            raise InputError(f"{count} names, but cosines {np.shape(alike.cosine)}", where="similarity")
        if np.shape(alike.conflict) != (len(alike.layers),):
            shapes = f"{len(alike.layers)} layers, but conflicts {np.shape(alike.conflict)}"
            raise InputError(shapes, where="similarity")
