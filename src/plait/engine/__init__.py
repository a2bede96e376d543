"""Recipe and checkpoints to plan, run and checkpoint."""

from plait.engine._build import build_plan
from plait.engine._compare import CheckpointDiff, diff_checkpoints, largest_differences
from plait.engine._extract import ExtractReport, extract_lora
from plait.engine._function import as_method
from plait.engine._inspect import Inspection, inspect_checkpoint
from plait.engine._limits import RunOptions
from plait.engine._merge import MergeResult, in_memory, merge, run
from plait.engine._plan import Output, Plan
from plait.engine._push import push
from plait.engine._run import Progress
from plait.engine._trace import TraceCell
from plait.engine._verify import VerifyReport, verify

__all__ = [
    "CheckpointDiff",
    "ExtractReport",
    "Inspection",
    "MergeResult",
    "Output",
    "Plan",
    "Progress",
    "RunOptions",
    "TraceCell",
    "VerifyReport",
    "as_method",
    "build_plan",
    "diff_checkpoints",
    "extract_lora",
    "in_memory",
    "inspect_checkpoint",
    "largest_differences",
    "merge",
    "push",
    "run",
    "verify",
]
