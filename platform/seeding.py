"""Seeds: sample i depends on (spec, seed, split, i) alone, never on who solves it or when."""

import zlib
from typing import Any

import numpy as np
from jaxtyping import UInt64


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """A generator for one purpose: the same (seed, words) give the same numbers on every machine.

    Words are hashed with CRC-32, integers are taken as they are; both spawn a NumPy `SeedSequence`, whose streams
    are independent for all practical purposes.

    Example:
        `generator(0, "train", "fields", 17)` draws the fields of training sample 17.
    """
    entropy = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in words]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=tuple(entropy))))


def generator_state(random: np.random.Generator) -> UInt64[np.ndarray, " 13"]:
    """Where a generator made by `generator` has got to, as an array that a checkpoint can hold."""
    state: Any = random.bit_generator.state
    words = [state["buffer_pos"], state["has_uint32"], state["uinteger"]]
    parts = [state["state"]["counter"], state["state"]["key"], state["buffer"], np.array(words, dtype=np.uint64)]
    return np.concatenate(parts)


def restore_generator(random: np.random.Generator, words: UInt64[np.ndarray, " 13"]) -> None:
    """Put a generator where `generator_state` found one."""
    random.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": words[:4], "key": words[4:6]},
        "buffer": words[6:10],
        "buffer_pos": int(words[10]),
        "has_uint32": int(words[11]),
        "uinteger": int(words[12]),
    }
