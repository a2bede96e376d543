"""A hub that is not there is asked once, and what is missing is told soon; one that answers, as ever."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import datasets.config
import pytest
from huggingface_hub import constants

from plait.tasks import Unavailable, load_suite
from plait.tasks import _hub as hub

CLIP = ("tanganke/sun397", "tanganke/resisc45", "ufldl-stanford/svhn", "ylecun/mnist", "tanganke/dtd")


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.setattr(hub, "_ASKED", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("which", "told"), [("closed", "can't be reached: .*refused"), ("silent", "gives no answer in 1 s")]
)
def test_without_the_hub_a_suite_says_soon_what_is_missing(which, told, request, monkeypatch):
    endpoint = request.getfixturevalue(which)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
    begun = time.monotonic()
    with pytest.raises(Unavailable, match=f"the hub, {endpoint}, {told}") as error:
        load_suite("clip-8")
    assert time.monotonic() - begun < 5  # five tries for each of eight data sets took minutes
    assert all(str(error.value).count(f"`{name}`") == 1 for name in CLIP)
    assert str(error.value).count("can't be had") == 1
    assert not datasets.config.HF_HUB_OFFLINE


def test_an_answer_of_any_kind_is_an_answer_and_holds_for_a_while(monkeypatch):
    asked = []

    class Session:
        def head(self, url: str, *, timeout: float) -> int:
            asked.append((url, timeout))
            return 503

    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror")
    monkeypatch.delenv("HF_HUB_ETAG_TIMEOUT", raising=False)
    assert hub.unreachable() is None
    assert hub.unreachable() is None
    assert asked == [("http://mirror", 5)]
    monkeypatch.setattr(constants, "ENDPOINT", "http://another")
    assert hub.unreachable() is None
    assert asked[1:] == [("http://another", 5)]


def test_a_hub_that_must_not_be_asked_is_not(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.utils.get_session", None)
    assert "HF_HUB_OFFLINE" in str(hub.unreachable())


@pytest.mark.parametrize("answers", [True, False])
def test_data_sets_are_asked_for_as_ever_if_the_hub_answers_and_in_the_cache_if_not(
    answers, monkeypatch, tmp_path
):
    asked = []

    def load(name: str, *_: object, **__: object) -> None:
        asked.append((name, datasets.config.HF_HUB_OFFLINE))
        raise ValueError("it is empty")

    monkeypatch.setattr(hub, "_ask", lambda endpoint: None if answers else f"{endpoint} is down")
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(Unavailable, match="it is empty" if answers else "is down"):
        load_suite("clip-8", tasks=["mnist"])
    assert asked == [("ylecun/mnist", not answers)]
