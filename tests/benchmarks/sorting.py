"""How long does it take to plan in which order to solve a large data set, and how much nearer do neighbours get?

* Planning: 1e5 fields of 128 x 128 points come in a stream, are reduced to features and ordered along the Hilbert
  curve, greedily in chunks. Seconds are those of features and ordering together; making the fields is timed apart and
  not counted, and they are not kept. Peak memory is that of the process, with what it had before planning.
* Quality: on 1e4 of the same fields the length of the path through them (Frobenius distances of the fields, thinned to
  32 x 32) in random order, along the curve, and by the exact greedy walk.
* Through a problem: the same for Darcy, where fields are drawn coarsely for the purpose (`SolverSource.planned_order`).

Two kinds of fields: log-normal ones with a Matern correlation, whose variance is spread over many directions, and
four-term Karhunen-Loeve fields, the easy case. One thread.

    python tests/benchmarks/sorting.py [--large 100000] [--small 10000]

The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
from _machine import ran_on

from headrace.solvers import GCRODR, Darcy, SolverSource
from headrace.solvers.sequences.sorting import features_of, greedy_order, hilbert_order, path_length, solving_order

POINTS = 128


class Fields:
    """A stream of log-normal fields from a fixed set of waves; counts the time that making them takes."""

    def __init__(self, num_terms: int, decay: float) -> None:
        x = (np.arange(POINTS) + 0.5) / POINTS
        self._waves = np.cos(np.pi * np.outer(np.arange(num_terms), x)).astype(np.float32)
        k = np.arange(num_terms)
        self._std = ((1.0 + k[:, None] ** 2 + k[None, :] ** 2) ** (-0.5 * decay)).astype(np.float32)
        self._std[0, 0] = 0.0
        self._std /= np.sqrt((self._std**2).sum())
        self.seconds = 0.0

    def __call__(self, count: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for _ in range(count):
            started = time.process_time()
            coefficients = self._std * rng.standard_normal(self._std.shape, dtype=np.float32)
            field = np.exp(self._waves.T @ coefficients @ self._waves)
            self.seconds += time.process_time() - started
            yield field


CASES = {"log-normal, many directions": (16, 2.5), "Karhunen-Loeve, 4 terms": (2, 2.5)}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=10_000)
    arguments = parser.parse_args()
    about = ran_on("numpy", "numba")
    print("Question: how long does planning the order of a data set take, and how much nearer do neighbours get?")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    greedy_order(np.zeros((3, 80)))
    print("Warm-up: compilation, not counted. Process CPU seconds, one repeat.\n")
    results: dict[str, dict[str, float]] = {}
    for case, (num_terms, decay) in CASES.items():
        found: dict[str, float] = {"memory_before_mib": round(peak_mib(), 1)}
        stream = Fields(num_terms, decay)
        started = time.process_time()
        order = solving_order(stream(arguments.large), arguments.large, "hilbert")
        found["hilbert_seconds"] = round(time.process_time() - started - stream.seconds, 2)
        found["drawing_seconds"] = round(stream.seconds, 2)
        found["memory_peak_mib"] = round(peak_mib(), 1)
        found["fields_would_take_mib"] = round(arguments.large * POINTS**2 * 4 / 2**20)
        assert np.array_equal(np.sort(order), np.arange(arguments.large))
        count = arguments.small
        features = features_of(Fields(num_terms, decay)(count), count)
        lengths = {"as drawn": path_length(features, range(count))}
        started = time.process_time()
        lengths["exact greedy"] = path_length(features, greedy_order(features))
        found["greedy_seconds"] = round(time.process_time() - started, 2)
        few = features_of(Fields(num_terms, decay)(count), count, most=64)
        lengths["hilbert, greedy in chunks"] = path_length(features, hilbert_order(few))
        lengths["hilbert, no walk in chunks"] = path_length(features, hilbert_order(few, chunk=1))
        found |= {f"path of {name}": round(value / lengths["as drawn"], 4) for name, value in lengths.items()}
        results[case] = found
        print(case)
        for name, value in found.items():
            print(f"  {name:36s} {value}")
    source = SolverSource(problem=Darcy(resolution=POINTS), method=GCRODR(), order="hilbert")
    started = time.process_time()
    order = source.planned_order(arguments.small)
    assert order is not None and len(order) == arguments.small
    seconds = round(time.process_time() - started, 2)
    results["through Darcy"] = {"samples": arguments.small, "seconds_with_drawing": seconds}
    print(f"through Darcy, {POINTS} points a side: {arguments.small} samples planned in {seconds} s with their draws")
    print(json.dumps({"benchmark": "sorting", "machine": about, "results": results}))


if __name__ == "__main__":
    main()
