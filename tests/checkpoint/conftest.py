"""Tiny transformers models, built and saved once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import MODELS
from torch import nn


class Zoo:
    """Builds each model on first use and keeps it, in memory and as the folder `save_pretrained` writes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._models: dict[str, nn.Module] = {}

    def model(self, name: str) -> nn.Module:
        if name not in self._models:
            self._models[name] = MODELS[name]()
        return self._models[name]

    def folder(self, name: str, **options: object) -> Path:
        folder = self._root / "-".join([name, *map(str, options.values())])
        if not folder.exists():
            self.model(name).save_pretrained(folder, **options)
        return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))
