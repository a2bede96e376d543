"""Two hundred small models, one for each tenant of a table: trained at once, routed, trained again in part.

python examples/fleet_tenants.py [--tenants 200] [--epochs 30]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd
import torch

from plait import Fleet

FEATURES = [f"x{i}" for i in range(8)]


def table(tenants: int, rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows of tenants of unequal size, each with a rule of its own."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, len(FEATURES))), columns=FEATURES)
    share = rng.dirichlet(np.full(tenants, 3.0))
    frame["tenant"] = rng.choice(tenants, rows, p=share)
    rules = rng.normal(size=(tenants, len(FEATURES)))
    noise = rng.normal(scale=0.1, size=rows)
    frame["y"] = np.tanh((frame[FEATURES].to_numpy() * rules[frame["tenant"]]).sum(1)) + noise
    return frame


def network() -> torch.nn.Module:
    """The model of a tenant."""
    return torch.nn.Sequential(torch.nn.Linear(len(FEATURES), 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))


def main(arguments: list[str] | None = None) -> float:
    """Train, predict, train again what changed.

    Returns:
        the error on unseen rows, as a share of their variance.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tenants", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args(arguments)
    if given.tenants < 1 or given.epochs < 1:
        parser.error("it takes one tenant and one epoch at least")
    frame = table(given.tenants, given.tenants * 200)
    train, test = frame.iloc[: len(frame) * 4 // 5], frame.iloc[len(frame) * 4 // 5 :]

    started = time.perf_counter()
    fleet = Fleet.from_frame(
        train, by="tenant", target="y", model=network, epochs=given.epochs, lr=0.01
    ).fit()
    print(f"{len(fleet)} models in {time.perf_counter() - started:.1f} s ({fleet.choices})")

    known = test[test["tenant"].astype(str).isin(fleet.members)]
    started = time.perf_counter()
    predicted = fleet.predict(known)
    print(f"{len(known)} rows routed in {(time.perf_counter() - started) * 1000:.0f} ms")
    error = float(np.mean((predicted - known["y"]) ** 2) / np.var(known["y"]))
    print(f"error on unseen rows: {error:.3f} of their variance")

    changed = train.copy()
    changed.loc[changed["tenant"] == changed["tenant"].iloc[0], "y"] *= -1
    print(f"trained again: {fleet.refit(changed)}")
    return error


if __name__ == "__main__":
    main()
