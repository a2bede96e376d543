"""Whether the Hugging Face hub answers, asked once: its libraries ask five times for each file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Seconds that the hub has for its answer, where `HF_HUB_ETAG_TIMEOUT` says nothing.
_DEADLINE = 5
#: Seconds for which an answer, or that there was none, holds.
_PATIENCE = 60.0
_ASKED: dict[str, tuple[float, str | None]] = {}
_LOCK = threading.RLock()


def unreachable() -> str | None:
    """Why the hub (or what `HF_ENDPOINT` names) can't be reached; None where it answers, whatever it says."""
    from huggingface_hub import constants

    with _LOCK:
        if constants.HF_HUB_OFFLINE:
            return "the hub is not asked, as HF_HUB_OFFLINE says"
        asked, found = _ASKED.get(constants.ENDPOINT, (-_PATIENCE, None))
        if time.monotonic() - asked >= _PATIENCE:
            found = _ask(constants.ENDPOINT)
            _ASKED[constants.ENDPOINT] = time.monotonic(), found
        return found


def _ask(endpoint: str) -> str | None:
    """One request; in a thread, as neither names of hosts nor many addresses heed a client's timeout."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    seconds = constants.HF_HUB_ETAG_TIMEOUT if os.environ.get("HF_HUB_ETAG_TIMEOUT") else _DEADLINE
    found = [f"the hub, {endpoint}, gives no answer in {seconds} seconds (HF_HUB_ETAG_TIMEOUT)"]

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=seconds)
            found.append("")
        except Exception as error:  # of the client's library, which is another in each version
            if "timeout" not in type(error).__name__.lower():
                found.append(f"the hub, {endpoint}, can't be reached: {str(error) or type(error).__name__}")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[-1] or None


@contextmanager
def offline() -> Iterator[None]:
    """Inside, `datasets` takes what its cache has, as if `HF_HUB_OFFLINE` were set: it has no other way."""
    from datasets import config

    with _LOCK:
        before = config.HF_HUB_OFFLINE
        config.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            config.HF_HUB_OFFLINE = before
