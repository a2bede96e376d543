"""What a model does, measured: tasks, suites of real tasks, evaluation of any model on any suite."""

from plait.tasks._examples import Batch, Columns, Examples, Items, Ragged, as_examples, digest
from plait.tasks._find import Source, Unavailable, find
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
from plait.tasks._packages import Debian, Hub, PyPI
from plait.tasks._subset import Subset
from plait.tasks._suite import Suite
from plait.tasks._task import SPLITS, Headed, Task
from plait.tasks.suites import load_suite, suite_names

__all__ = [
    "IGNORED",
    "SPLITS",
    "Batch",
    "ByInput",
    "ByKeywords",
    "Columns",
    "CrossEntropy",
    "Debian",
    "Examples",
    "Headed",
    "Hub",
    "Items",
    "Loss",
    "MeanPooled",
    "Meet",
    "Metric",
    "NextToken",
    "PyPI",
    "Ragged",
    "Source",
    "SquaredError",
    "Subset",
    "Suite",
    "Task",
    "Unavailable",
    "accuracy",
    "as_examples",
    "bits_per_byte",
    "digest",
    "find",
    "load_suite",
    "macro_f1",
    "mean_squared_error",
    "perplexity",
    "suite_names",
]
