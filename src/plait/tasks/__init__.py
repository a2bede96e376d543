"""What a model does, measured: tasks, suites of real tasks, evaluation of any model on any suite."""

from plait.checkpoint import HEAD_FILE
from plait.tasks._compare import Difference, compare, regressions
from plait.tasks._copied import copied
from plait.tasks._evaluate import Measured, evaluate, measure, tabulate
from plait.tasks._examples import (
    Batch,
    Columns,
    Examples,
    Items,
    Ragged,
    as_examples,
    columns_of,
    digest,
    filling,
)
from plait.tasks._find import Source, Unavailable, find
from plait.tasks._joint import Heads, MixedLoss
from plait.tasks._labels import Classes, check_labels, known_labels, label_problem
from plait.tasks._language import PackedTokens, language_task
from plait.tasks._lm_eval import evaluate_lm
from plait.tasks._losses import (
    IGNORED,
    TASK,
    CrossEntropy,
    Loss,
    NextToken,
    SquaredError,
    size_problem,
)
from plait.tasks._markdown import notes
from plait.tasks._meet import ByInput, ByKeywords, MeanPooled, Meet
from plait.tasks._metrics import (
    Metric,
    accuracy,
    bits_per_byte,
    macro_f1,
    mean_squared_error,
    perplexity,
)
from plait.tasks._mixed import Mixed, in_memory, padding
from plait.tasks._mixture import mixture
from plait.tasks._network import at_rest, with_head
from plait.tasks._packages import Debian, Hub, PyPI
from plait.tasks._packing import check_packing
from plait.tasks._reasons import reasons
from plait.tasks._saved import file_name, folder_name, save_network
from plait.tasks._scores import NOTE, Average, Evidence, Score, Scores, marked, read_scores
from plait.tasks._subset import Subset, table_of
from plait.tasks._suite import Suite
from plait.tasks._task import SPLITS, Headed, Task
from plait.tasks._try import PROMPTS, Trial, Tried, try_models
from plait.tasks.suites import load_suite, suite_names, suite_summaries

__all__ = [
    "HEAD_FILE",
    "IGNORED",
    "NOTE",
    "PROMPTS",
    "SPLITS",
    "TASK",
    "Average",
    "Batch",
    "ByInput",
    "ByKeywords",
    "Classes",
    "Columns",
    "CrossEntropy",
    "Debian",
    "Difference",
    "Evidence",
    "Examples",
    "Headed",
    "Heads",
    "Hub",
    "Items",
    "Loss",
    "MeanPooled",
    "Measured",
    "Meet",
    "Metric",
    "Mixed",
    "MixedLoss",
    "NextToken",
    "PackedTokens",
    "PyPI",
    "Ragged",
    "Score",
    "Scores",
    "Source",
    "SquaredError",
    "Subset",
    "Suite",
    "Task",
    "Trial",
    "Tried",
    "Unavailable",
    "accuracy",
    "as_examples",
    "at_rest",
    "bits_per_byte",
    "check_labels",
    "check_packing",
    "columns_of",
    "compare",
    "copied",
    "digest",
    "evaluate",
    "evaluate_lm",
    "file_name",
    "filling",
    "find",
    "folder_name",
    "in_memory",
    "known_labels",
    "label_problem",
    "language_task",
    "load_suite",
    "macro_f1",
    "marked",
    "mean_squared_error",
    "measure",
    "mixture",
    "notes",
    "padding",
    "perplexity",
    "read_scores",
    "reasons",
    "regressions",
    "save_network",
    "size_problem",
    "suite_names",
    "suite_summaries",
    "table_of",
    "tabulate",
    "try_models",
    "with_head",
]
