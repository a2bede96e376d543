"""A suite out of a YAML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plait.errors import InputError, MissingExtra, raise_all
from plait.recipe import read_yaml, validate
from plait.tasks._called import called
from plait.tasks._examples import Columns, Examples, Ragged
from plait.tasks._find import Unavailable
from plait.tasks._gather import gather
from plait.tasks._hub import unreachable
from plait.tasks._losses import IGNORED, CrossEntropy, Loss, NextToken, SquaredError
from plait.tasks._meet import ByInput, ByKeywords, MeanPooled, Meet
from plait.tasks._metrics import (
    Metric,
    accuracy,
    bits_per_byte,
    macro_f1,
    mean_squared_error,
    perplexity,
)
from plait.tasks._pictures import pictures
from plait.tasks._reasons import reasons
from plait.tasks._suite import Suite
from plait.tasks._suite_document import BaseDocument, SuiteDocument, TaskDocument
from plait.tasks._table_columns import classes, features, goals, texts
from plait.tasks._tables import Table, read_splits
from plait.tasks._task import Task

UNLABELLED = ("calibration", "adaptation")
_LOSSES: Mapping[str, Callable[[], Loss]] = {
    "cross_entropy": CrossEntropy,
    "squared_error": SquaredError,
    "next_token": NextToken,
}
_METRICS = {"cross_entropy": "accuracy", "squared_error": "mean_squared_error", "next_token": "bits_per_byte"}
_MEETS: Mapping[str, Callable[[], Meet]] = {
    "input": ByInput,
    "mean_pooled": MeanPooled,
    "pooled": partial(ByKeywords, ("pixel_values", "input_ids", "attention_mask"), "pooler_output"),
    "logits": ByKeywords,
}


def load_suite_file(path: str | Path, tasks: Sequence[str] | None = None) -> Suite:
    """The suite that a YAML file describes; `docs/suites.md` has the grammar.

    Args:
        path: of the file; what it names is found relative to it.
        tasks: as for `load_suite`.

    Raises:
        InputError: the file says something that it can't; all problems are named, with their lines.
    """
    path = Path(path)
    documents = read_yaml(path, kind="suite")
    document, problems, _ = validate(SuiteDocument, documents[0], strict=True)
    raise_all(problems)
    assert document is not None
    makers = {task.name: partial(_task, task, document, path.parent) for task in document.tasks}
    if len(makers) < len(document.tasks):
        raise InputError("two tasks have one name", where=str(path))
    found = gather(document.suite, makers, tasks)
    if not found["tasks"]:
        told = "; ".join(reason.why for reason in reasons(found["missing"]))
        raise Unavailable(f"no task can be had: {told}", where=f"suite `{document.suite}`")
    about = (
        document.about if document.run_by_plait else f"{document.about} Not run by plait's authors.".strip()
    )
    experts = {task.name: task.expert for task in document.tasks if task.expert}
    base = partial(_base, document.base, path.parent, documents[0].locate(("base", "call")))
    decode = _decoder(document, path.parent) if document.reads == "text" else None
    return Suite(document.suite, base=base, about=about, experts=experts, decode=decode, **found)


def _task(task: TaskDocument, suite: SuiteDocument, folder: Path) -> Task:
    tables = read_splits(task.data, folder)
    inputs = _inputs(next(iter(tables.values())), task, suite)
    splits = {
        split: _examples(table, inputs, task, suite, folder, labelled=split not in UNLABELLED)
        for split, table in tables.items()
    }
    shapes = {
        split: part.columns["input"].shape[1:] for split, part in splits.items() if type(part) is Columns
    }
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"`{split}` {tuple(shape)}" for split, shape in shapes.items())
        raise InputError(f"features of splits differ in shape: {told}", where=f"task `{task.name}`")
    head = None
    if task.loss != "next_token":
        head = nn.Linear(suite.width or 1, task.classes or 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    return Task(
        task.name,
        splits,
        _LOSSES[task.loss](),
        _metric(task),
        head=head,
        meet=_MEETS[suite.meet](),
        semi_synthetic=task.semi_synthetic,
        about=task.about,
    )


def _metric(task: TaskDocument) -> Metric:
    name = task.metric or _METRICS[task.loss]
    if name == "macro_f1":
        return macro_f1(task.classes or 1)
    plain: Mapping[str, Callable[[], Metric]] = {
        "accuracy": accuracy,
        "mean_squared_error": mean_squared_error,
        "bits_per_byte": bits_per_byte,
        "perplexity": perplexity,
    }
    return plain[name]()


def _inputs(table: Table, task: TaskDocument, suite: SuiteDocument) -> list[str]:
    """The columns that models get: the same, in one order, for all splits."""
    if task.input is not None:
        return [task.input] if isinstance(task.input, str) else task.input
    if suite.reads != "numbers" or "input" in table.names:
        return ["input"]
    found = [name for name in table.names if name not in (task.label, task.data.source)]
    if not found:
        raise InputError("there is no column of features", where=table.where, hint="name some with `input`")
    return found


def _examples(
    table: Table,
    inputs: list[str],
    task: TaskDocument,
    suite: SuiteDocument,
    folder: Path,
    *,
    labelled: bool,
) -> Examples:
    source = table.sources(task.data.source) if task.data.source else None
    labels: dict[str, Tensor] = {}
    if labelled and task.loss == "cross_entropy":
        labels["label"] = classes(table, task.label, task.classes or 1)
    elif labelled and task.loss == "squared_error":
        labels["label"] = goals(table, task.label)
    if suite.reads == "numbers":
        return Columns({"input": features(table, inputs), **labels}, source)
    if suite.reads == "images":
        return pictures(table, inputs[0], _processor("AutoImageProcessor", suite, folder), labels, source)
    tokenizer = _processor("AutoTokenizer", suite, folder)
    return _texts(texts(table, inputs[0]), tokenizer, suite.length, task.loss, labels, source)


def _texts(
    given: list[str],
    tokenizer: Any,
    length: int,
    loss: str,
    labels: dict[str, torch.Tensor],
    source: list[str] | None,
) -> Ragged:
    """Tokens of texts; for next-token losses with labels, and the bytes that they stand for."""
    found = tokenizer(given, truncation=True, max_length=length)
    sequences = {name: found[name] for name in ("input_ids", "attention_mask")}
    if loss != "next_token":
        return Ragged(sequences, labels, source=source)
    # The first token is given, not predicted, so its bytes do not count.
    counted = [tokenizer.decode(ids[1:], skip_special_tokens=True) for ids in sequences["input_ids"]]
    sizes = torch.tensor([len(text.encode()) for text in counted])
    return Ragged(
        {**sequences, "labels": sequences["input_ids"]}, {"bytes": sizes}, {"labels": IGNORED}, source
    )


def _decoder(suite: SuiteDocument, folder: Path) -> Callable[[Sequence[int]], str]:
    """Makes text of tokens; its tokenizer is read when it is first asked."""
    held: list[Any] = []

    def decode(tokens: Sequence[int]) -> str:
        if not held:
            held.append(_processor("AutoTokenizer", suite, folder))
        return held[0].decode(list(tokens), skip_special_tokens=True)

    return decode


def _processor(kind: str, suite: SuiteDocument, folder: Path) -> Any:
    return _pretrained(kind, suite.processor or str(suite.base.model), folder)


def _pretrained(kind: str, name: str, folder: Path) -> Any:
    """A tokenizer, processor or model of transformers, out of a folder or from the hub."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "a suite of text or pictures") from error
    made = getattr(transformers, kind, None)
    if made is None:
        raise InputError(f"transformers has no `{kind}`", hint="`type` names one of its classes")
    local = folder / name
    why = None if local.is_dir() or Path(name).is_dir() else unreachable()
    try:
        more = {} if why is None else {"local_files_only": True}
        return made.from_pretrained(str(local) if local.is_dir() else name, **more)
    except Exception as error:  # the library raises errors of the hub, of files, of safetensors and its own
        reason = why or str(error).strip().partition("\n")[0] or type(error).__name__
        raise Unavailable(f"`{name}` can't be had ({reason})", hint="give a folder or a hub id") from error


def _base(document: BaseDocument, folder: Path, where: str) -> nn.Module:
    if document.model is not None:
        return _pretrained(document.type, document.model, folder)
    return called(str(document.call), folder, where)
