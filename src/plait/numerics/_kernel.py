"""Rules compiled to loops: what a rule wrote down, as one branch-free pass with the number of models fixed.

    kernel(inputs…, ranks…, kept, out, extra, numbers, start, cols, step)

Inputs are float32 arrays or bfloat16 bits (uint16), flat; ranks are float32; `kept` is uint8, where a rule's
conditions are noted for a later pass, one bit per model. `numbers` is the tuple (params,
cuts, keys, row_params, row_cuts, prefixes). Elements go row by row, `cols` at a time; a rule that draws
random numbers goes through each row in the generator's groups of 1024. The innermost loop runs over plain
slices from 0 on, which is what lets LLVM turn it into vector instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from plait.numerics._ops import Expr
from plait.numerics._writer import Writer

#: Elements whose magnitudes' bits are kept at a time, between computing and counting them.
_TILE = 2048
#: More inputs than this are first copied, tile by tile, into one memory.
_DIRECT = 7
_STAGE = 1024
#: Kinds that add up each `step` elements.
SUMS = ("sums", "products")
#: Kinds whose magnitudes are computed one after the other.
_LOOP_EACH = ("bits", "counts", "refine", "band")
_IMPORTS = "draw_group, from_bf16, local, largest16, largest32, tally_high, bits32, to_bf16"


@dataclass(frozen=True)
class Spec:
    """What a kernel is compiled for.

    Attributes:
        kind: `combine` (the values), `sums` (of each expression over each `step` elements), `products` (sums
            whose expressions are computed in float64 too), `bits` (of each magnitude), `counts` (of their
            first 16 bits), `refine` (of their last 16 bits under prefixes), `band` (those between bounds, and
            how many lie above).
        inputs: `b` (bfloat16) or `f` (float32) for each input.
        output: `b` or `f`, for `combine`.
        params: how many numbers are the same everywhere.
        cuts: how many indices bound `before`, the same everywhere.
        row_params: numbers that each row has its own of.
        row_cuts: the same of indices, within the row.
        ranks: models whose ranks the rule uses.
        recalls: conditions are read from where an earlier pass noted them.
    """

    kind: str
    inputs: str
    output: str = "f"
    params: int = 0
    cuts: int = 0
    row_params: int = 0
    row_cuts: int = 0
    ranks: tuple[int, ...] = ()
    recalls: bool = False


@dataclass
class _Body:
    """What a kind of kernel does: before all, per chunk of `step`, per tile, in loops, and after each."""

    loops: list[list[str]]
    setup: list[str] = field(default_factory=list)
    chunk: list[str] = field(default_factory=list)
    slices: list[str] = field(default_factory=list)
    tile_end: list[str] = field(default_factory=list)
    chunk_end: list[str] = field(default_factory=list)
    end: list[str] = field(default_factory=list)
    tile: int = 0


def source(spec: Spec, results: Sequence[Expr], notes: Mapping[int, Expr] | None = None) -> str:
    """The kernel's text.

    Args:
        spec: what it is compiled for.
        results: what it computes.
        notes: conditions by model that it writes down on the way, for a kernel of the kind `sums`.
    """
    constants: dict[float, str] = {}
    if spec.kind in _LOOP_EACH:
        writers = [Writer(constants, f"v{j}_") for j in range(len(results))]
    else:
        writers = [Writer(constants)] * len(results)
    names = [writer.name(result) for writer, result in zip(writers, results, strict=True)]
    body = _BODIES[spec.kind](spec, names)
    if notes:
        bits = [f"np.uint8({1 << k} if {writers[0].name(note)} else 0)" for k, note in notes.items()]
        body.loops[-1].append(f"kb[e] = {' | '.join(bits)}")
    if notes or spec.recalls:
        body.slices.append("kb = kept[position:position + size]")
    draws = sorted(set().union(*(writer.draws for writer in writers)))
    # LLVM checks at run time that what is written overlaps nothing that is read, and gives up on too many.
    staged = len(spec.inputs) + len(spec.ranks) + len(draws) > _DIRECT
    tile = min(body.tile or _STAGE, _STAGE) if staged else body.tile
    arguments = [f"a{i}" for i in range(len(spec.inputs))] + [f"r{k}" for k in spec.ranks]
    flags = ', fastmath={"reassoc"}' if spec.kind in SUMS else ""
    head = [
        '"""A rule, compiled; this file can be deleted at any time."""',
        "import math",
        "import numpy as np",
        "from numba import njit",
        f"from plait.numerics._intrinsics import {_IMPORTS}",
        "from plait.numerics._masks import gather_band, tally_low",
        *(f"{name} = np.float32({value!r})" for value, name in constants.items()),
        "",
        f'@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False{flags})',
        f"def kernel({', '.join(arguments)}, kept, out, extra, numbers, start, cols, step):",
    ]
    loops: list[str] = []
    for lines, writer in zip(body.loops, dict.fromkeys(writers), strict=True):
        loops += ["for e in range(size):", *_indent(_inputs(spec, staged) + writer.lines + lines)]
    steps = [
        *_tile_start(spec, draws, tile, staged),
        *(_stages(spec, draws) if staged else []),
        *body.slices,
        *loops,
        *body.tile_end,
        "position += size",
    ]
    text = [
        "params, cuts, keys, row_params, row_cuts, prefixes = numbers",
        *(f"p{i} = params[{i}]" for i in range(spec.params)),
        *(f"u{k} = np.empty(1024, np.float32)" for k in draws),
        *(["drawn = np.int64(-1)"] if draws else []),
        *(_stage_memory(spec, draws) if staged else []),
        *body.setup,
        "total = a0.shape[0]",
        "for chunk in range(0, total, step):",
        "    position, stop = chunk, min(chunk + step, total)",
        *_indent(body.chunk),
        "    while position < stop:",
        *_indent(_indent(steps)),
        *_indent(body.chunk_end),
        *body.end,
    ]
    return "\n".join(head + _indent(text)).replace("inf)", "np.inf)") + "\n"


def _inputs(spec: Spec, staged: bool) -> list[str]:
    loads = [f"s{i}[e]" if staged else _load(kind, i) for i, kind in enumerate(spec.inputs)]
    wide = spec.kind == "products"
    return [f"x{i} = " + (f"np.float64({load})" if wide else load) for i, load in enumerate(loads)]


def _staged_names(spec: Spec, draws: Sequence[int]) -> list[tuple[str, str]]:
    """What is copied into one memory first: the name there, and where it comes from."""
    inputs = [(f"s{i}", _load(kind, i)) for i, kind in enumerate(spec.inputs)]
    ranks = [(f"k{k}", f"c{k}[e]") for k in spec.ranks]
    return inputs + ranks + [(f"w{k}", f"v{k}[e]") for k in draws]


def _stage_memory(spec: Spec, draws: Sequence[int]) -> list[str]:
    names = [name for name, _ in _staged_names(spec, draws)]
    lines = [f"staged = np.empty({_STAGE * (len(names) + 1)}, np.float32)"]
    lines += [f"{name} = staged[{_STAGE * i}:{_STAGE * (i + 1)}]" for i, name in enumerate(names)]
    return lines


def _stages(spec: Spec, draws: Sequence[int]) -> list[str]:
    lines = []
    for name, value in _staged_names(spec, draws):
        lines += ["for e in range(size):", f"    {name}[e] = {value}"]
    return lines


def _load(kind: str, i: int) -> str:
    return f"from_bf16(b{i}[e])" if kind == "b" else f"b{i}[e]"


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _tile_start(spec: Spec, draws: Sequence[int], longest: int, staged: bool) -> list[str]:
    """From `position` on: how many elements go together, and the slices that they are."""
    by_row = bool(spec.row_params or spec.row_cuts)
    lines = ["size = stop - position"]
    if by_row:
        lines += [
            "row = position // cols",
            "column = position - row * cols",
            "size = min(size, cols - column)",
        ]
    if longest:
        lines += [f"size = min(size, {longest})"]
    if draws:
        lines += [
            "group = (start + position) // 1024",
            "low = start + position - group * 1024",
            "size = min(size, 1024 - low)",
            "if group != drawn:",
            *(f"    draw_group(group, keys[{k}, 0], keys[{k}, 1], u{k})" for k in draws),
            "    drawn = group",
            *(f"{'v' if staged else 'w'}{k} = u{k}[low:low + size]" for k in draws),
        ]
    lines += [f"b{i} = a{i}[position:position + size]" for i in range(len(spec.inputs))]
    lines += [f"{'c' if staged else 'k'}{k} = r{k}[position:position + size]" for k in spec.ranks]
    lines += [f"g{i} = row_params[{i}, row]" for i in range(spec.row_params)]
    lines += [f"l{i} = local(cuts[{i}] - start - position, size)" for i in range(spec.cuts)]
    lines += [f"h{i} = local(row_cuts[{i}, row] - column, size)" for i in range(spec.row_cuts)]
    return lines


def _combine(spec: Spec, names: Sequence[str]) -> _Body:
    value = f"to_bf16({names[0]})" if spec.output == "b" else names[0]
    largest = [
        f"extra[{i}] = max(extra[{i}], largest{'16' if kind == 'b' else '32'}(a{i}))"
        for i, kind in enumerate(spec.inputs)
    ]
    return _Body([[f"o[e] = {value}"]], slices=["o = out[position:position + size]"], end=largest)


def _sums(spec: Spec, names: Sequence[str]) -> _Body:
    return _Body(
        [[f"t{j} += np.float64({name})" for j, name in enumerate(names)]],
        chunk=[f"s_{j} = 0.0" for j in range(len(names))],
        # Sums of tiles first: the inner ones become vectors, and their bits do not depend on the block.
        slices=[f"t{j} = 0.0" for j in range(len(names))],
        tile_end=[f"s_{j} += t{j}" for j in range(len(names))],
        chunk_end=[f"out[chunk // step, {j}] = s_{j}" for j in range(len(names))],
    )


def _bits(spec: Spec, names: Sequence[str]) -> _Body:
    slices = [f"o{j} = out[{j}, position:position + size]" for j in range(len(names))]
    return _Body([[f"o{j}[e] = bits32({name})"] for j, name in enumerate(names)], slices=slices)


def _counts(spec: Spec, names: Sequence[str]) -> _Body:
    count = range(len(names))
    return _Body(
        [
            [f"d = bits32({name})", f"t{j}[e] = np.uint16(d >> 16)", f"y{j} += np.int32(d == 0)"]
            for j, name in enumerate(names)
        ],
        setup=[
            line for j in count for line in (f"t{j} = np.empty({_TILE}, np.uint16)", f"z{j} = np.int64(0)")
        ],
        slices=[f"y{j} = np.int32(0)" for j in count],
        tile_end=[line for j in count for line in (f"z{j} += y{j}", f"tally_high(t{j}, size, out[{j}])")],
        end=[f"extra[{j}] += z{j}" for j in count],
        tile=_TILE,
    )


def _refine(spec: Spec, names: Sequence[str]) -> _Body:
    count = range(len(names))
    return _Body(
        [[f"t{j}[e] = bits32({name})"] for j, name in enumerate(names)],
        setup=[f"t{j} = np.empty({_TILE}, np.uint32)" for j in count],
        tile_end=[f"tally_low(t{j}, size, prefixes[{j}], out[{j}])" for j in count],
        tile=_TILE,
    )


def _band(spec: Spec, names: Sequence[str]) -> _Body:
    count = range(len(names))
    return _Body(
        [[f"t{j}[e] = bits32({name})", f"y{j} += np.int32(t{j}[e] == 0)"] for j, name in enumerate(names)],
        setup=[
            "kept, places, zeros = out",
            *(f"t{j} = np.empty({_TILE}, np.uint32)" for j in count),
        ],
        slices=[f"y{j} = np.int32(0)" for j in count],
        tile_end=[
            line
            for j in count
            for line in (
                f"zeros[{j}] += y{j}",
                f"where = prefixes[{j}], extra[{j}], kept[{j}], places[{j}]",
                f"gather_band(t{j}, size, start + position, *where)",
            )
        ],
        tile=_TILE,
    )


_BODIES = {
    "combine": _combine,
    "sums": _sums,
    "products": _sums,
    "bits": _bits,
    "counts": _counts,
    "refine": _refine,
    "band": _band,
}
