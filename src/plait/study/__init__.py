"""The whole loop in one file: base → many → one → how good, side by side."""

from plait.study._run import StudyRun, run_study
from plait.study._steps import Done
from plait.study._study import Study, load_study
from plait.study.ways import Way

__all__ = ["Done", "Study", "StudyRun", "Way", "load_study", "run_study"]
