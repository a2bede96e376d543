"""Recipe and checkpoints to plan, run and checkpoint."""

from plait.engine._limits import RunOptions
from plait.engine._merge import MergeResult, in_memory, merge, run
from plait.engine._plan import Output, Plan, build_plan
from plait.engine._push import push
from plait.engine._run import Progress
from plait.engine._verify import VerifyReport, verify

__all__ = [
    "MergeResult",
    "Output",
    "Plan",
    "Progress",
    "RunOptions",
    "VerifyReport",
    "build_plan",
    "in_memory",
    "merge",
    "push",
    "run",
    "verify",
]
