"""Documents as vectors: tf-idf of their words, projected to the directions that vary most."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import InputError
from plait.study._balanced import Floats
from plait.study._extras import check_sklearn
from plait.study._whole import write_json

_WORD = re.compile(r"\b\w\w+\b")
_NUMBER, _DIMENSIONS = "#number", 100
_WORDS, _VECTORS = "words.json", "vectors.npy"


@dataclass(frozen=True)
class Embedding:
    """h(document) = the sum of its words' vectors, scaled to length 1; 0 of a document without a known word.

    A word's vector is its inverse document frequency times its row of the projection: so a document's vector
    is that of tf-idf → SVD → normalise, without a matrix of documents.

    Args:
        words: word → its row.
        vectors: `(words, width)`.
    """

    words: dict[str, int]
    vectors: NDArray[np.float32]

    def of(self, words: Iterable[str]) -> Floats:
        """The vector of a document's words, `(width,)`."""
        known = [self.words[word] for word in words if word in self.words]
        found = self.vectors[known].sum(0, dtype=np.float64)
        norm = np.linalg.norm(found)
        return found / norm if norm > 0 else found

    def save(self, folder: Path) -> None:
        """Write it into a folder."""
        write_json(list(self.words), folder / _WORDS, indent=None)
        np.save(folder / _VECTORS, self.vectors)

    @classmethod
    def load(cls, folder: Path) -> Embedding:
        """Read it from a folder."""
        words = json.loads((folder / _WORDS).read_text(encoding="utf-8"))
        return cls({word: place for place, word in enumerate(words)}, np.load(folder / _VECTORS))


def fitted(documents: Sequence[Sequence[str]], seed: int) -> Embedding:
    """The embedding of some documents: tf-idf → truncated SVD of 100 dimensions (Gururangan et al.,
    arXiv:2303.14177, section 2.1).

    Args:
        documents: their words.
        seed: of the SVD, which is randomised.

    Raises:
        InputError: there is no word.
    """
    check_sklearn("clustering documents")
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(documents):
        hint = "they have nothing but single letters and English stop words"
        raise InputError("the training texts have no word to tell them apart", hint=hint)
    tf_idf: Any = TfidfVectorizer
    vectorizer = tf_idf(analyzer=list)
    table = vectorizer.fit_transform(documents)
    directions = np.ones((1, 1))  # of one word alone, which scikit-learn refuses
    if table.shape[1] > 1:
        svd = TruncatedSVD(min(_DIMENSIONS, *table.shape), random_state=seed)
        directions = svd.fit(table).components_
    words = {str(word): place for place, word in enumerate(vectorizer.get_feature_names_out())}
    return Embedding(words, (directions * vectorizer.idf_).T.astype(np.float32))


def words_of(tokens: Sequence[int], decode: Callable[[Sequence[int]], str] | None) -> list[str]:
    """A document's words: lower case, English stop words left out, all numbers one word.

    Where nobody knows what tokens say, each is a word.
    """
    if decode is None:
        return [str(token) for token in tokens]
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    found = _WORD.findall(decode(tokens).lower())
    return [_NUMBER if word[0].isdigit() else word for word in found if word not in ENGLISH_STOP_WORDS]
