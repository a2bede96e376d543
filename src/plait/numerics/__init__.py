"""Mathematics that several rooms share."""

from plait.numerics._grid import CHUNK, Grid, grid
from plait.numerics._ops import (
    Expr,
    RuleError,
    Value,
    absolute,
    exp,
    maximum,
    minimum,
    sign,
    sqrt,
    tanh,
    where,
)
from plait.numerics._philox import stream_key, uniform

__all__ = [
    "CHUNK",
    "Expr",
    "Grid",
    "RuleError",
    "Value",
    "absolute",
    "exp",
    "grid",
    "maximum",
    "minimum",
    "sign",
    "sqrt",
    "stream_key",
    "tanh",
    "uniform",
    "where",
]
