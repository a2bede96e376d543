"""Task arithmetic (Ilharco et al., ICLR 2023, arXiv:2212.04089): θ = θ₀ + λ Σ_t w_t (θ_t − θ₀).

A negative weight forgets a task; B − A + C as weights −1, 1, 1 makes an analogy.
"""

from plait.methods._consensus import SUM
from plait.methods._parts import compose
from plait.methods._sparsify import NONE

METHOD = compose(
    "task_arithmetic",
    sparsify=NONE,
    consensus=SUM,
    summary="add weighted task vectors to the base",
    reference="arXiv:2212.04089",
)
