"""Many models trained at once, each as if it were alone."""

from plait.fleet._auto import Choice
from plait.fleet._callbacks import Callback
from plait.fleet._fleet import Fleet
from plait.fleet._halving import SuccessiveHalving
from plait.fleet._log import MLflow, TensorBoard
from plait.fleet._member import After, Member
from plait.fleet._optuna import OptunaPruning
from plait.fleet._stream import visits
from plait.fleet._trainer_callbacks import TrainerCallbacks
from plait.fleet._warnings import FleetWarning

__all__ = [
    "After",
    "Callback",
    "Choice",
    "Fleet",
    "FleetWarning",
    "MLflow",
    "Member",
    "OptunaPruning",
    "SuccessiveHalving",
    "TensorBoard",
    "TrainerCallbacks",
    "visits",
]
