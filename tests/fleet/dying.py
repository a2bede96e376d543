"""A fleet that is killed after a round, in a process of its own: `dying.py FOLDER BACKEND ROUND`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from networks import MLP, task

from plait.fleet import Fleet, Member, SuccessiveHalving


def fleet(folder: Path | None, backend: str) -> Fleet:
    """Members with all that a save must keep: schedules, dropout, best weights, unequal lengths."""
    members = [
        Member(
            name=f"m/{i}",
            steps=40 + 7 * i,
            seed=i,
            lr=1e-5 if i == 3 else 0.01,
            schedule="cosine",
            batch_size=9 + i,
            evaluate_every=5,
            keep="best",
            patience=6,
        )
        for i in range(4)
    ]
    return Fleet(
        members,
        task(MLP),
        model=lambda: MLP(dropout=0.2),
        backend=backend,  # type: ignore[arg-type]
        out=folder,
        save_every=10,
    )


def halving() -> SuccessiveHalving:
    return SuccessiveHalving(rungs=[20, 30], eta=1.4)


class Death:
    def __init__(self, at: int) -> None:
        self.at = at

    def on_round(self, fleet: Fleet, validated: object) -> None:
        if fleet.round == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    fleet(Path(sys.argv[1]), sys.argv[2]).fit(callbacks=[halving(), Death(int(sys.argv[3]))])
