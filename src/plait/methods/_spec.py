"""What a method is: typed options, an ordered list of stages, and one rule that combines.

stages    each streams over the inputs once (or twice) and gives a few numbers: sums, order statistics
combine   the same small expression at every coordinate; it sees the models, the options and the
          numbers of the stages through a `Cell`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from plait.numerics import Value

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["row", "tensor", "model"]
Kind = Literal["float", "int", "bool", "str"]
#: Numbers of a stage: 0-d float64 arrays, or `(rows,)` where the scope is `row`.
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Option:
    """One typed option of a method.

    Attributes:
        name: as written in a recipe.
        default: the paper's default; None means that the recipe must set it, unless `optional`.
        doc: one sentence.
        mergekit: mergekit's default where it differs.
        kind: type of the value.
        low: smallest value allowed.
        high: largest value allowed.
        choices: the values allowed, for words.
        per_model: each model has its own.
        optional: may stay unset (None).
        needed: mergekit has no default, so its grammar must set it.
    """

    name: str
    default: float | int | bool | str | None
    doc: str
    mergekit: float | int | bool | str | None = None
    kind: Kind = "float"
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    per_model: bool = False
    optional: bool = False
    needed: bool = False

    def default_for(self, conventions: str) -> float | int | bool | str | None:
        """The default under `paper` or `mergekit` conventions."""
        return self.mergekit if conventions == "mergekit" and self.mergekit is not None else self.default

    @property
    def allowed(self) -> str:
        """What its values may be, in words."""
        kinds = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
        text = " | ".join(self.choices) if self.choices else kinds[self.kind]
        if self.low is not None and self.high is not None:
            text += f" from {self.low:g} to {self.high:g}"
        elif self.low is not None:
            text += f" from {self.low:g} on"
        return f"{text} per model" if self.per_model else text

    @property
    def defaults(self) -> str:
        """Its defaults, in words."""
        paper, mergekit = (_word(self.default_for(which)) for which in ("paper", "mergekit"))
        if self.default is None:
            return "optional" if self.optional else "required"
        return f"default {paper}" if paper == mergekit else f"default {paper}, mergekit's {mergekit}"

    @property
    def runtime(self) -> bool:
        """A number that a compiled rule takes as an argument; words and booleans are compiled in."""
        return self.kind == "float"


def _word(value: float | int | bool | str | None) -> str:
    """A value as a recipe writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else str(value)


class Cell(Protocol):
    """What a rule sees at one coordinate."""

    @property
    def base(self) -> Value:
        """The base's value."""
        ...

    @property
    def models(self) -> tuple[Value, ...]:
        """The models' values, in the recipe's canonical order."""
        ...

    @property
    def delta(self) -> tuple[Value, ...]:
        """Task vectors: each model minus the base."""
        ...

    def option(self, name: str) -> Any:
        """A shared option: a value for a float, a Python constant for the rest."""
        ...

    def each(self, name: str) -> tuple[Value, ...]:
        """An option per model."""
        ...

    def stat(self, name: str) -> tuple[Value, ...]:
        """What a stage found."""
        ...

    def has(self, name: str) -> bool:
        """Whether a stage found this."""
        ...

    def uniform(self, model: int) -> Value:
        """A uniform number in [0, 1), seeded by (seed, model, tensor, element)."""
        ...

    def rank(self, model: int) -> Value:
        """Place of |task vector| in its row, ascending, over (row length − 1); 0.5 in a row of one."""
        ...

    def recall(self, model: int, condition: Callable[[], Value]) -> Value:
        """A condition on a model that is worth keeping: an earlier pass may have noted it."""
        ...

    def before(self, cut: Value) -> Value:
        """Whether this element's index (in its row where the stage's scope is `row`) is below `cut`."""
        ...


@dataclass(frozen=True)
class Settings:
    """A method's options for one tensor.

    Attributes:
        shared: option → value.
        per_model: option → one value per model.
        models: number of models (the base not counted).
        numel: elements of the tensor.
        shape: its shape.
        matrices: how a `Matrix` sees it: that many matrices, of so many rows and columns; None if it is none.
    """

    shared: Mapping[str, Any]
    per_model: Mapping[str, tuple[Any, ...]]
    models: int
    numel: int
    shape: tuple[int, ...] = ()
    matrices: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Sums:
    """A stage that adds up expressions over its scope, in float64 and in a fixed order.

    Attributes:
        name: for messages and the journal.
        rule: the expressions.
        finish: sums → named numbers, seen by later stages and by `combine` through `Cell.stat`.
        scope: what is summed over.
        double: the rule itself is computed in float64 too, where products of float32 are exact.
    """

    name: str
    rule: Callable[[Cell], Sequence[Value]]
    finish: Callable[[Sequence[Numbers], Settings], Mapping[str, Sequence[Numbers]]]
    scope: Scope = "tensor"
    double: bool = False


@dataclass(frozen=True)
class Order:
    """A stage that finds order statistics of magnitudes, exactly.

    For each magnitude and each rank k asked for it gives `NAME`, the k-th largest, and `NAME_cut`: among
    equal magnitudes, those with an index below it belong to exactly k (all of them where `exact` is off).
    Both are flat: magnitude 0's ranks, then magnitude 1's. k ≤ 0 gives infinity: nothing is that large.

    Attributes:
        name: of the statistics.
        rule: non-negative magnitudes.
        ranks: number of elements in the scope, numbers that are not zero per magnitude, settings → the
            ranks of each magnitude, equally many for all (arrays `(rows,)` where the scope is `row`).
        exact: cut ties by the lowest index.
        scope: where elements are ranked.
    """

    name: str
    rule: Callable[[Cell], Sequence[Value]]
    ranks: Callable[[int, Sequence[Numbers], Settings], Sequence[Sequence[Any]]]
    exact: bool
    scope: Scope = "tensor"


Stage = Sums | Order


@dataclass(frozen=True)
class Matrix:
    """How a method merges what is a matrix: a 2-D weight, a convolution as `(out, rest)`, each of a stack.

    Attributes:
        merge: task vectors, settings → the merged task vector. All are `(rows, cols)` float64. One is read
            whenever a loop comes to it, so hold as few as possible; it may be changed in place.
        memory: settings → how many float64 numbers `merge` holds at most beside a task vector, with what the
            libraries' functions take. Only a tensor that fits the memory budget is merged.
        applies: settings → whether a matrix is merged so, and not by the method's rule.
    """

    merge: Callable[[Iterable[Tensor], Settings], Tensor]
    memory: Callable[[Settings], int]
    applies: Callable[[Settings], bool] = field(default=lambda settings: True)


@dataclass(frozen=True)
class Method:
    """A merging method.

    Attributes:
        name: as written in a recipe.
        summary: one line.
        reference: where it was published.
        combine: the rule.
        options: typed options.
        stages: settings → what must be known before `combine` runs.
        base: `required`, `optional`, or `unused` (a base is then one more model, or ignored).
        min_models: fewest models besides the base.
        max_models: most models besides the base; None is no limit.
        symmetric: the order of the models does not matter.
        check: settings → what is wrong with them together, or None.
        by_row: the rule needs whole rows (it ranks within them).
        whole: settings → whether the rule must see the whole tensor at once, as a torch tensor of its own
            shape; such a rule may use all of torch.
        matrix: how matrices are merged, in place of the rule; task vectors need a base.
    """

    name: str
    summary: str
    reference: str
    combine: Callable[[Cell], Value]
    options: tuple[Option, ...] = ()
    stages: Callable[[Settings], Sequence[Stage]] = field(default=lambda settings: ())
    base: Literal["required", "optional", "unused"] = "unused"
    min_models: int = 1
    max_models: int | None = None
    symmetric: bool = True
    check: Callable[[Settings], str | None] = field(default=lambda settings: None)
    by_row: bool = False
    whole: Callable[[Settings], bool] = field(default=lambda settings: False)
    matrix: Matrix | None = None

    def __post_init__(self) -> None:
        if self.matrix is not None and self.base != "required":
            raise ValueError(f"the method `{self.name}` merges matrices' task vectors, so it requires a base")

    def option(self, name: str) -> Option | None:
        """The option of this name."""
        return next((option for option in self.options if option.name == name), None)
