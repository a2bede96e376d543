"""Ways of becoming one: each a key of a study's `ways`, with what belongs to it."""

from __future__ import annotations

from plait.study.ways._alternating import Alternating
from plait.study.ways._clusters import Clusters
from plait.study.ways._concatenated import Concatenated
from plait.study.ways._distilled import Distilled
from plait.study.ways._ensemble import Ensemble
from plait.study.ways._federated import Federate
from plait.study.ways._joint import Joint
from plait.study.ways._merge import Merge
from plait.study.ways._posterior import Posterior
from plait.study.ways._split import Split
from plait.study.ways._way import Way
from plait.study.ways._zoo import Zoo

#: The key that names a kind of way → what it is.
WAYS: dict[str, type[Way]] = {
    "merge": Merge,
    "train": Joint,
    "ensemble": Ensemble,
    "alternate": Alternating,
    "distill": Distilled,
    "concatenate": Concatenated,
    "zoo": Zoo,
    "federate": Federate,
    "split": Split,
    "posterior": Posterior,
    "clusters": Clusters,
}

__all__ = ["WAYS", "Way"]
