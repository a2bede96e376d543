"""Rules compiled to loops: what a rule wrote down, as one branch-free pass with the number of models fixed.

A kernel is source text made from traced expressions, with common terms once. It is kept in a cache folder
under the hash of its text, where numba keeps its machine code, so that a process compiles nothing twice.

    kernel(inputs…, out, params, cuts, keys, start, step)

Inputs are float32 arrays or bfloat16 bits (uint16). Elements go in groups of 1024, the generator's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plait.numerics._ops import Expr, RuleError

_BINARY = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
}
_CALLS = {"abs": "abs", "sqrt": "math.sqrt", "exp": "math.exp", "tanh": "math.tanh"}
_LOCK = threading.Lock()
_LOADED: dict[str, Callable[..., Any]] = {}


@dataclass(frozen=True)
class Spec:
    """What a kernel is compiled for.

    Attributes:
        kind: `combine`, `sums`, `counts` (first 16 bits) or `refine` (last 16 bits).
        inputs: `b` (bfloat16) or `f` (float32) for each input.
        output: `b` or `f`, for `combine`.
    """

    kind: str
    inputs: str
    output: str = "f"


class _Writer:
    """Turns expressions into assignments, each distinct term once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[float, str] = {}
        self.seen: dict[tuple[Any, ...], str] = {}
        self.draws: set[int] = set()
        self.names: dict[int, str] = {}

    def name(self, expr: Expr) -> str:
        if id(expr) not in self.names:
            self.names[id(expr)] = self._write(expr)
        return self.names[id(expr)]

    def _write(self, expr: Expr) -> str:
        op, args = expr.op, expr.args
        if op == "const":
            return self.constants.setdefault(args[0], f"C{len(self.constants)}")
        if op == "input":
            return f"x{args[0]}"
        if op == "param":
            return f"p{args[0]}"
        if op == "uniform":
            self.draws.add(args[0])
            return f"u{args[0]}[e]"
        if op == "before":
            text = f"(origin + e) < q{args[0]}"
        elif op == "where":
            condition, yes, no = (self.name(a) for a in args)
            text = f"{yes} if {condition} else {no}"
        elif op in _BINARY:
            left, right = (self.name(a) for a in args)
            text = f"{left} {_BINARY[op]} {right}"
        elif op in _CALLS:
            text = f"{_CALLS[op]}({self.name(args[0])})"
        elif op == "neg":
            text = f"-{self.name(args[0])}"
        elif op == "not":
            text = f"not {self.name(args[0])}"
        else:
            raise RuleError(f"`{op}` can't be compiled")
        if (text,) not in self.seen:
            self.seen[text,] = f"v{len(self.seen)}"
            self.lines.append(f"{self.seen[text,]} = {text}")
        return self.seen[text,]


def source(spec: Spec, results: Sequence[Expr], params: int, cuts: int) -> str:
    """The kernel's text."""
    writer = _Writer()
    names = [writer.name(result) for result in results]
    head = [
        f"x{i} = from_bf16(a{i}[i])" if kind == "b" else f"x{i} = a{i}[i]"
        for i, kind in enumerate(spec.inputs)
    ]
    setup = [f"p{i} = params[{i}]" for i in range(params)] + [f"q{i} = cuts[{i}]" for i in range(cuts)]
    drawn = sorted(writer.draws)
    setup += [f"u{k} = np.empty(1024, np.float32)" for k in drawn]
    draw = [f"draw_group(group, keys[{k}, 0], keys[{k}, 1], u{k})" for k in drawn]
    before, tail, after, reset, close = _BODIES[spec.kind](spec, names)
    arguments = ", ".join(f"a{i}" for i in range(len(spec.inputs)))
    flags = ', fastmath={"reassoc"}' if spec.kind == "sums" else ""
    lines = [
        '"""A rule, compiled; this file can be deleted at any time."""',
        "import math",
        "import numpy as np",
        "from numba import njit",
        "from plait.numerics._intrinsics import bits32, draw_group, from_bf16, larger16, larger32, to_bf16",
        *(f"{name} = np.float32({value!r})" for value, name in writer.constants.items()),
        "",
        f'@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False{flags})',
        f"def kernel({arguments}, out, largest, params, cuts, keys, start, step):",
        *(f"    {line}" for line in setup + before),
        "    total = a0.shape[0]",
        "    for chunk in range(0, total, step):",
        "        stop = min(chunk + step, total)",
        *(f"        {line}" for line in reset),
        "        position = chunk",
        "        while position < stop:",
        "            group = (start + position) // 1024",
        "            origin = group * 1024",
        "            low = start + position - origin",
        "            high = min(1024, start + stop - origin)",
        "            shift = origin - start",
        *(f"            {line}" for line in draw),
        "            for e in range(low, high):",
        "                i = e + shift",
        *(f"                {line}" for line in head + writer.lines + tail),
        *(f"            {line}" for line in after),
        "            position = high + shift",
        *(f"        {line}" for line in close),
    ]
    ending = [f"largest[{i}] = max(largest[{i}], m{i})" for i in range(len(spec.inputs))]
    if spec.kind == "combine":
        lines += [f"    {line}" for line in ending]
    return "\n".join(lines).replace("inf)", "np.inf)") + "\n"


def _combine(spec: Spec, names: Sequence[str]) -> tuple[list[str], ...]:
    before, tail = [], []
    for i, kind in enumerate(spec.inputs):
        before.append(f"m{i} = np.uint16(0)" if kind == "b" else f"m{i} = np.uint32(0)")
        tail.append(
            f"m{i} = larger16(m{i}, a{i}[i])" if kind == "b" else f"m{i} = larger32(m{i}, bits32(x{i}))"
        )
    tail.append(f"out[i] = to_bf16({names[0]})" if spec.output == "b" else f"out[i] = {names[0]}")
    return before, tail, [], [], []


def _sums(spec: Spec, names: Sequence[str]) -> tuple[list[str], ...]:
    reset = [f"s{j} = 0.0" for j in range(len(names))]
    tail = [f"s{j} += np.float64({name})" for j, name in enumerate(names)]
    close = [f"out[chunk // step, {j}] = s{j}" for j in range(len(names))]
    return [], tail, [], reset, close


def _counts(spec: Spec, names: Sequence[str]) -> tuple[list[str], ...]:
    before, tail, after = [], [], []
    for j, name in enumerate(names):
        before.append(f"t{j} = np.empty(1024, np.uint32)")
        tail.append(f"t{j}[e] = bits32({name})")
        # Equal neighbours would wait for each other's count: even and odd elements have their own.
        after += [
            "for e in range(low, high - 1, 2):",
            f"    b, d = t{j}[e], t{j}[e + 1]",
            f"    out[{j}, 0, b >> 16] += 1",
            f"    out[{j}, 1, d >> 16] += 1",
            f"    largest[{j}] += (b == 0) + (d == 0)",
            "if (high - low) % 2:",
            f"    b = t{j}[high - 1]",
            f"    out[{j}, 0, b >> 16] += 1",
            f"    largest[{j}] += b == 0",
        ]
    return before, tail, after, [], []


def _refine(spec: Spec, names: Sequence[str]) -> tuple[list[str], ...]:
    before, tail, after = ["width = keys.shape[1]"], [], []
    for j, name in enumerate(names):
        before.append(f"t{j} = np.empty(1024, np.uint32)")
        tail.append(f"t{j}[e] = bits32({name})")
        after += [
            "for e in range(low, high):",
            f"    b = t{j}[e]",
            "    for w in range(width):",
            f"        if (b >> 16) == keys[{j}, w]:",
            f"            out[{j}, w, b & 65535] += 1",
        ]
    return before, tail, after, [], []


_BODIES = {"combine": _combine, "sums": _sums, "counts": _counts, "refine": _refine}


def load(text: str) -> Callable[..., Any]:
    """The compiled kernel of a source text, from this process, the cache folder, or the compiler."""
    key = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    with _LOCK:
        if key not in _LOADED:
            _LOADED[key] = _import(text, key)
        return _LOADED[key]


def cache_folder() -> Path:
    """Where kernels are kept: `PLAIT_CACHE`, or `plait` in the user's cache folder."""
    given = os.environ.get("PLAIT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(given) if given else Path(home) / "plait") / "kernels"


def _import(text: str, key: str) -> Callable[..., Any]:
    folder = cache_folder()
    path = folder / f"rule_{key}.py"
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            folder.mkdir(parents=True, exist_ok=True)
            own = folder / f".{key}.{os.getpid()}"
            own.write_text(text, encoding="utf-8")
            own.replace(path)
        spec = importlib.util.spec_from_file_location(f"plait_rule_{key}", path)
        if spec is None or spec.loader is None:
            raise OSError(path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module.kernel
    except OSError:
        # No place to keep it: compiled for this process alone.
        space: dict[str, Any] = {}
        exec(compile(text.replace("cache=True, ", ""), f"<rule {key}>", "exec"), space)
        return space["kernel"]
