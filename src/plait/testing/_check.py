"""`check_method`: plait's own invariants, run on one method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from plait.engine import as_method
from plait.errors import InputError, nearest
from plait.methods import Method, get_method
from plait.testing._bench import Bench, benches
from plait.testing._invariants import INVARIANTS, Broken


class BrokenMethod(AssertionError):
    """A method does not keep plait's invariants.

    Attributes:
        method: its name.
        failures: invariant → how it is broken.
    """

    def __init__(self, method: str, failures: Mapping[str, str]) -> None:
        self.method, self.failures = method, dict(failures)
        count = f"{len(failures)} invariant{'s' * (len(failures) > 1)}"
        lines = [f"- {name}: {how}" for name, how in failures.items()]
        super().__init__("\n".join([f"the method `{method}` breaks {count}:", *lines]))

    def __reduce__(self) -> tuple[object, ...]:
        return BrokenMethod, (self.method, self.failures)


def check_method(
    method: str | Method | Callable[..., Any], /, *, conventions: str | None = None, **options: Any
) -> None:
    """Run plait's own invariants on a method, on small random checkpoints, in seconds.

    Every invariant runs, and all that are broken are reported together:

    - runs: a merge has the names, shapes and type of its models, and finite values.
    - compiled: the rule is one expression for every coordinate (no `if`, nothing that looks at more than
      one), and compiled it gives the bits of torch; after sums, `exp` or `tanh`, the same within rounding.
    - blocks, threads: any memory budget and any number of threads give the same bytes, ties included.
    - seed: two runs with one seed give the same bytes.
    - order: the models of a method that says it is `symmetric` may come in any order.
    - types: bf16, f16 and f8 are computed in float32 and rounded once, at the end; float64 agrees.
    - zeros: models that equal the base, and models of zeros, give finite values.
    - shapes: a checkpoint of one scalar, empty tensor, row, column or vector merges.
    - one model: so does a single model, unless the method takes no fewer than two.
    - nan: NaN and infinity in an input are refused by name, and pass with `allow_nan`.
    - options: a value that an option has for one tensor acts on that tensor alone.

    A rule that sees whole tensors is not compiled. A base is given if the method looks at one; a method with
    an optional base is tested with and without, a plain function with. An option without a default, or
    one that does nothing at its default, gets a value between its bounds.

    Args:
        method: a registered name, a `Method`, or a function of a cell or of `(models, base)`.
        conventions: `paper` or `mergekit`: whose defaults hold; both, where they differ, if None.
        options: option → value, a list for one value per model; `lambda_` stands for `lambda`.

    Raises:
        BrokenMethod: an `AssertionError` that names each broken invariant and says how it is broken.
        InputError: there is no such method or option.

    Example:
        ```python
        from plait.testing import check_method

        def test_halfway():
            check_method(lambda models, base: 0.5 * (models[0] + base))
        ```
    """
    found = get_method(method) if isinstance(method, str) else as_method(method)
    given = {name.rstrip("_"): value for name, value in options.items()}
    for name in given:
        if found.option(name) is None:
            names = [option.name for option in found.options]
            raise InputError(f"the method `{found.name}` has no option `{name}`", hint=nearest(name, names))
    if conventions not in (None, "paper", "mergekit"):
        raise InputError(f"`conventions` is `{conventions}`, and it must be paper or mergekit")
    failures: dict[str, str] = {}
    for bench in benches(found, given, _conventions(found, conventions), bare=found is method):
        for name, how in _failures(bench).items():
            failures.setdefault(name, f"{how}{_setting(bench, found)}")
    if failures:
        raise BrokenMethod(found.name, failures)


def _conventions(method: Method, wanted: str | None) -> tuple[str, ...]:
    if wanted is not None:
        return (wanted,)
    differ = any(option.mergekit not in (None, option.default) for option in method.options)
    return ("paper", "mergekit") if differ else ("paper",)


def _failures(bench: Bench) -> dict[str, str]:
    """Invariant → how it is broken; if nothing merges, what the rule says of itself, and no more."""
    found: dict[str, str] = {}
    for name, check in INVARIANTS.items():
        if "runs" in found and name != "compiled":
            break
        try:
            check(bench)
        except Broken as error:
            found[name] = str(error)
        except Exception as error:  # whatever the method raises
            found[name] = f"{type(error).__name__}: {error}"
        if "compiled" in found:  # it is told once; the rest is tested by torch
            bench = replace(bench, compiles=False)
    return found


def _setting(bench: Bench, method: Method) -> str:
    words = [] if _conventions(method, None) == ("paper",) else [f"{bench.conventions} conventions"]
    if method.base == "optional" and not bench.with_base:
        words.append("without a base")
    return f" ({', '.join(words)})" if words else ""
