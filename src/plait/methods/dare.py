"""DARE (Yu et al., ICML 2024, arXiv:2311.03099): drop entries of task vectors at random, rescale the rest.

δ̃ = m ⊙ δ / density with m ~ Bernoulli(density); then a sum (`dare_linear`) or an elected sign (`dare_ties`).
mergekit rescales by the realised ratio of L1 norms instead.
"""

from plait.methods._consensus import SIGN, SUM
from plait.methods._parts import compose
from plait.methods._sparsify import RANDOM

METHODS = (
    compose(
        "dare_linear",
        sparsify=RANDOM,
        consensus=SUM,
        summary="drop entries at random, rescale, add",
        reference="arXiv:2311.03099",
        density=(0.1, 1.0),
        rescale=("probability", "l1"),
    ),
    compose(
        "dare_ties",
        sparsify=RANDOM,
        consensus=SIGN,
        summary="drop entries at random, rescale, elect a sign",
        reference="arXiv:2311.03099",
        density=(0.1, 1.0),
        rescale=("probability", "l1"),
        normalize=(True, False),
    ),
)
