"""Mathematics that several rooms share."""

from plait.numerics._device import usable_device
from plait.numerics._grid import CHUNK, Grid, grid
from plait.numerics._kernel_cache import user_cache
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
from plait.numerics._select import Search, bit_levels, keys, level_counts, row_order, row_ranks
from plait.numerics._threads import torch_threads
from plait.numerics._triplets import leading_triplets, polar

__all__ = [
    "CHUNK",
    "Expr",
    "Grid",
    "RuleError",
    "Search",
    "Value",
    "absolute",
    "bit_levels",
    "exp",
    "grid",
    "keys",
    "leading_triplets",
    "level_counts",
    "maximum",
    "minimum",
    "polar",
    "row_order",
    "row_ranks",
    "sign",
    "sqrt",
    "stream_key",
    "tanh",
    "torch_threads",
    "uniform",
    "usable_device",
    "user_cache",
    "where",
]
