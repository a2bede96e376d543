"""Sentences that stand below several tables and figures."""

from __future__ import annotations

from plait.report._results import Results
from plait.tasks import NOTE


def draws(results: Results) -> str:
    """How differences are tested."""
    return (
        "Difference of the mean shares in points, with the 95 % interval of a paired bootstrap over "
        f"{results.split} examples: 1.96 standard deviations of its draws to either side; tasks and seeds "
        "are taken as they are. p: two-sided, of the difference over that deviation; below 0.05 just where "
        "the interval leaves out 0. p (Holm): corrected for all that are tested, as the interval is not."
    )


def noted(results: Results) -> list[str]:
    """What a mark means, where there is one."""
    return [f"{NOTE}."] if results.semi_synthetic else []


def over(results: Results) -> list[str]:
    """Over how many seeds."""
    count = len(results.seeds)
    return [f"Mean ± standard deviation over {count} seeds."] if count > 1 else ["One seed."]
