"""Expressions written down as assignments, each distinct term once."""

from __future__ import annotations

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


class Writer:
    """Turns expressions into assignments, each distinct term once."""

    def __init__(self, constants: dict[float, str], prefix: str = "v") -> None:
        self.lines: list[str] = []
        self.constants, self.prefix = constants, prefix
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
        if op == "row_param":
            return f"g{args[0]}"
        if op == "rank":
            return f"k{args[0]}[e]"
        if op == "uniform":
            self.draws.add(args[0])
            return f"w{args[0]}[e]"
        if op == "kept":
            text = f"(kb[e] & np.uint8({1 << args[0]})) != 0"
        elif op in ("before", "row_before"):
            text = f"np.int32(e) < {'l' if op == 'before' else 'h'}{args[0]}"
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
            self.seen[text,] = f"{self.prefix}{len(self.seen)}"
            self.lines.append(f"{self.seen[text,]} = {text}")
        return self.seen[text,]
