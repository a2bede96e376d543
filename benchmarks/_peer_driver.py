"""Runs recipes through mergekit in one process; for the interpreter of mergekit's own environment.

    PEER-PYTHON _peer_driver.py JOBS.json RESULTS.jsonl

Each job is `{"name", "words", "stages"}`: the words of `mergekit-yaml`, or of `mergekit-multi` for recipes of
several documents. Starting mergekit takes ten seconds, so it is started once.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


def main(jobs_path: str, results_path: str) -> None:
    """Run the jobs in order; one line of JSON for each."""
    from mergekit.scripts import multimerge, run_yaml

    logging.disable(logging.WARNING)
    with open(jobs_path, encoding="utf-8") as file:
        jobs: list[dict[str, Any]] = json.load(file)
    with open(results_path, "w", encoding="utf-8") as out:
        commands = (run_yaml.main, multimerge.main)
        options = [p for command in commands for p in command.params if p.param_type_name == "option"]
        flags = sorted({flag for option in options for flag in (*option.opts, *option.secondary_opts)})
        out.write(json.dumps({"name": "", "flags": flags}) + "\n")
        for job in jobs:
            command = multimerge.main if job["stages"] else run_yaml.main
            started, error = time.perf_counter(), None
            try:
                command(args=job["words"], standalone_mode=False)
            except BaseException as failed:
                error = f"{type(failed).__name__}: {failed}"
            seconds = time.perf_counter() - started
            line = {"name": job["name"], "error": error, "seconds": seconds}
            out.write(json.dumps(line) + "\n")
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
