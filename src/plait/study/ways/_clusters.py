"""c-BTM: domains found by clustering, an expert for each, weighed by how near a text is to each cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from plait.errors import InputError, noted
from plait.study._at import INDEX, read_index
from plait.study._balanced import Floats, Labels, balanced_centres, squared_distances
from plait.study._embedding import Embedding, fitted, words_of
from plait.study._extras import check_sklearn
from plait.study._language import Texts, problems_of_language
from plait.study._mixing import TokenMixture
from plait.study._models import batches
from plait.study._training import fit, write_index
from plait.study.ways._trained import Trained
from plait.tasks import Subset, Suite, Task, mixture

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

_FOUND, _CENTRES, _LABELS = "clusters", "centres.npy", "labels.npy"


class Clusters(Trained):
    """`clusters: K`: training examples of all tasks are clustered by their words, and each cluster has an
    expert, trained from the base. At inference expert j weighs exp(−‖h − c_j‖² / T), where h embeds the
    tokens so far, which are looked at anew after each `every` of them; before that, weights are equal.

    Gururangan et al., arXiv:2303.14177.
    """

    kind: ClassVar[str] = "ensemble"
    of_experts: ClassVar[bool] = False
    asked: ClassVar[frozenset[str]] = frozenset({"temperature", "top", "every"})

    clusters: int = Field(ge=1)
    temperature: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    top: int | None = Field(default=None, ge=1)
    every: int = Field(default=16, ge=1)

    @property
    def method(self) -> str:
        return "arXiv:2303.14177"

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        problems = super().problems(study, where)
        with noted(problems):
            check_sklearn("clustering documents")
        return problems

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        problems = problems_of_language(suite, "an ensemble of clusters", where)
        count = sum(len(task.splits["train"]) for task in suite.tasks if "train" in task.splits)
        if count < self.clusters:
            what = f"{count} training examples make no {self.clusters} clusters"
            problems.append(InputError(what, where=where, hint="give fewer clusters"))
        return problems

    def facts(self, at: At) -> dict[str, Any]:
        return super().facts(at) | {"backend": at.study.backend, "text": at.suite.decode is not None}

    def make(self, at: At, folder: Path) -> None:
        if not (folder / _FOUND).is_dir():
            self._find(at, folder)
        if (folder / INDEX).is_file():
            return
        labels, mixed = np.load(folder / _FOUND / _LABELS), mixture(list(at.suite.tasks))
        learned = {}
        for cluster in range(self.clusters):
            part = Subset(mixed.split("train"), np.flatnonzero(labels == cluster))
            learned[_name(cluster)] = replace(mixed, name=_name(cluster), splits={"train": part})
        settings = self.joined(at.study.experts)
        write_index(fit(at, learned, settings, folder, backend=at.study.backend), folder)

    def _find(self, at: At, folder: Path) -> None:
        """Clusters and which each training example is in; whole or not there."""
        documents = _documents(at.suite)
        embedding = fitted(documents, at.seed)
        points = np.stack([embedding.of(words) for words in documents])
        centres = balanced_centres(points, self.clusters, at.seed)
        labels: Labels = squared_distances(points, centres).argmin(1)
        empty = [n for n in range(self.clusters) if not (labels == n).any()]
        if empty:
            what = f"no training text is nearest to {_name(empty[0])} of {self.clusters}"
            raise InputError(what, hint="many texts have the same words: give fewer clusters")
        begun = folder / f"{_FOUND}.partial"
        shutil.rmtree(begun, ignore_errors=True)
        begun.mkdir()
        embedding.save(begun)
        np.save(begun / _CENTRES, centres)
        np.save(begun / _LABELS, labels)
        begun.rename(folder / _FOUND)

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        assert folder is not None
        index = read_index(folder)
        bodies = [at.body(index[_name(cluster)]) for cluster in range(self.clusters)]
        found = folder / _FOUND
        weigh = Nearness(
            Embedding.load(found), np.load(found / _CENTRES), self.temperature, self.every, at.suite.decode
        )
        return lambda _: TokenMixture(bodies, weigh, self.top)


@dataclass(frozen=True)
class Nearness:
    """Weights of clusters from what a text has said so far.

    Args:
        embedding: of documents.
        centres: of clusters, `(clusters, width)`.
        temperature: T.
        every: how many tokens come before the context is looked at anew.
        decode: the suite's.
    """

    embedding: Embedding
    centres: Floats
    temperature: float
    every: int
    decode: Callable[[Sequence[int]], str] | None

    def __call__(self, said: Tensor, texts: Texts) -> Tensor:
        """Logarithms of weights, up to a sum: `(clusters, n, length)`; 0 without a known word."""
        found = torch.zeros_like(said)
        for row, place in texts:
            tokens = texts.ids[row, place].tolist()
            for seen in range(self.every, len(tokens) + 1, self.every):
                start = place.start + seen - 1
                weights = self.of(words_of(tokens[:seen], self.decode))
                held = slice(start, min(start + self.every, place.stop))
                found[:, row, held] = torch.from_numpy(weights).to(found)[:, None]
        return found

    def of(self, words: Sequence[str]) -> Floats:
        """Those of a context's words, `(clusters,)`."""
        point = self.embedding.of(words)
        if not point.any():
            return np.zeros(len(self.centres))
        return -squared_distances(point[None], self.centres)[0] / self.temperature


def _name(cluster: int) -> str:
    return f"cluster {cluster + 1}"


def _documents(suite: Suite) -> list[list[str]]:
    """The words of every training example, task after task."""
    found = []
    for task in suite.tasks:
        for batch in batches(task.split("train")):
            texts = Texts.of_batch(task, batch)
            for ids, real in zip(texts.ids, texts.real, strict=True):
                found.append(words_of(ids[real].tolist(), suite.decode))
    return found
