"""Many experiments on the data of one run, and a test whether they are independent (arXiv:2509.23383)."""

from plait.study.once._controller import Controlled, Reading
from plait.study.once._dependence import Dependence, Effect, dependence
from plait.study.once._experiment import Experiment
from plait.study.once._placement import Place
from plait.study.once._probes import log_probability
from plait.study.once._train_once import Once, Outcome, train_once

__all__ = [
    "Controlled",
    "Dependence",
    "Effect",
    "Experiment",
    "Once",
    "Outcome",
    "Place",
    "Reading",
    "dependence",
    "log_probability",
    "train_once",
]
