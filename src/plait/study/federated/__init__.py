"""Federated training, simulated: clients with data and speeds of their own, a server, and a clock."""

from plait.study.federated._affinity import Affinities, affinity, probe
from plait.study.federated._allocation import dealt, update_variance
from plait.study.federated._clients import Clients, Delays, deal, gathered
from plait.study.federated._clock import Clock, Request
from plait.study.federated._grouping import MOST_TASKS, best_groups
from plait.study.federated._joined import Joined
from plait.study.federated._local import Local, trained_locally
from plait.study.federated._policies import Asynchronous, Policy, Synchronous
from plait.study.federated._server import Model
from plait.study.federated._stage import Goal, Record, Stage
from plait.study.federated._work import forward_work, work_of

__all__ = [
    "MOST_TASKS",
    "Affinities",
    "Asynchronous",
    "Clients",
    "Clock",
    "Delays",
    "Goal",
    "Joined",
    "Local",
    "Model",
    "Policy",
    "Record",
    "Request",
    "Stage",
    "Synchronous",
    "affinity",
    "best_groups",
    "deal",
    "dealt",
    "forward_work",
    "gathered",
    "probe",
    "trained_locally",
    "update_variance",
    "work_of",
]
