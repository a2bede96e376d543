"""The whole loop in one file: base → many → one → how good, side by side; and many experiments in one run."""

from plait.study._run import StudyRun, run_study
from plait.study._steps import Done
from plait.study._study import Study, load_study
from plait.study.once import Controlled, Dependence, Experiment, Once, dependence, log_probability, train_once
from plait.study.ways import Way

__all__ = [
    "Controlled",
    "Dependence",
    "Done",
    "Experiment",
    "Once",
    "Study",
    "StudyRun",
    "Way",
    "dependence",
    "load_study",
    "log_probability",
    "run_study",
    "train_once",
]
