"""How a shard of samples lies on the disk: names, header, provenance table, chunk files. See `SampleStore`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float64

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Provenance, SampleBatch

FORMAT_VERSION = 1
NAMED = ("spec_hash", "seed", "level", "solver", "status", "version")  # stored as positions in lists of names
NUMBERS = ("relative_residual", "num_iterations", "wall_seconds", "cpu_seconds")
COLUMNS = (*NAMED, *NUMBERS)
UNKNOWN = -1  # the code of a sample that came without provenance


@dataclass(frozen=True, kw_only=True)
class ShardHeader:
    """What the attribute `headrace` of a shard's group says.

    Attributes:
        schema: what the samples look like.
        metadata: what the writer was given to keep.
        rows_per_chunk: samples per chunk.
        names: per named column the strings that its codes stand for.
    """

    schema: SampleSchema
    metadata: Mapping[str, Any]
    rows_per_chunk: int
    names: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """The attribute's value."""
        return {
            "version": FORMAT_VERSION,
            "schema": self.schema.to_json(),
            "metadata": dict(self.metadata),
            "rows_per_chunk": self.rows_per_chunk,
            "names": self.names,
        }


def open_shard(path: Path, mode: str) -> tuple[zarr.Group, ShardHeader]:
    """Open a shard's group, `r` or `r+`.

    Raises:
        InputError: it is not a shard, or of another version.
    """
    expected = f"a shard of Headrace samples, format {FORMAT_VERSION}"
    try:
        group = zarr.open_group(path, mode="r+" if mode == "r+" else "r", use_consolidated=False)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise InputError.single(str(path), "no readable Zarr group", expected) from error
    attribute: Any = group.attrs.get("headrace")
    if not isinstance(attribute, dict):
        raise InputError.single(str(path), "a Zarr group of something else", expected)
    if attribute.get("version") != FORMAT_VERSION:
        raise InputError.single(str(path), f"a shard of format {attribute.get('version')}", expected)
    try:
        header = ShardHeader(
            schema=SampleSchema.from_json(attribute["schema"]),
            metadata=attribute["metadata"],
            rows_per_chunk=int(attribute["rows_per_chunk"]),
            names={column: list(attribute["names"][column]) for column in NAMED},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError.single(str(path), f"a shard with a damaged header ({error})", expected) from error
    return group, header


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a shard.

    Raises:
        InputError: the shard lacks it.
    """
    try:
        array = group.get(name)
    except (ValueError, KeyError, TypeError) as error:
        # Codecs that nobody registered among them: pickles are of that kind.
        raise InputError.single(f"{group.store_path}: {name}", f"not readable ({error})", "a shard's array") from error
    if not isinstance(array, zarr.Array):
        raise InputError.single(str(group.store_path), f"without the array {name}", "a complete shard")
    return array


def encode_provenance(batch: SampleBatch, names: dict[str, list[str]]) -> Float64[np.ndarray, "batch columns"]:
    """The rows of the provenance table; names that are new are appended to `names`."""
    table = np.full((len(batch), len(COLUMNS)), np.nan)
    table[:, : len(NAMED)] = UNKNOWN
    if not batch.provenance:
        return table
    for column, name in enumerate(NAMED):
        values = [str(getattr(provenance, name)) for provenance in batch.provenance]
        names[name] += [value for value in dict.fromkeys(values) if value not in names[name]]
        codes = {value: code for code, value in enumerate(names[name])}
        table[:, column] = [codes[value] for value in values]
    for column, name in enumerate(NUMBERS, start=len(NAMED)):
        table[:, column] = [getattr(provenance, name) for provenance in batch.provenance]
    return table


def decode_provenance(
    table: Float64[np.ndarray, "batch columns"], indices: Sequence[int] | np.ndarray, names: Mapping[str, Sequence[str]]
) -> tuple[Provenance, ...]:
    """What `encode_provenance` was given; "unknown" where a sample came without."""
    found = []
    for row, index in zip(table.tolist(), indices, strict=True):
        codes = {name: int(code) for name, code in zip(NAMED, row, strict=False)}
        words = {name: names[name][code] if code != UNKNOWN else "unknown" for name, code in codes.items()}
        numbers = dict(zip(NUMBERS, row[len(NAMED) :], strict=True))
        iterations = numbers.pop("num_iterations")
        found.append(
            Provenance(
                spec_hash=words["spec_hash"],
                seed=int(words["seed"]) if codes["seed"] != UNKNOWN else 0,
                index=int(index),
                level=words["level"],
                solver=words["solver"],
                status=words["status"],
                version=words["version"],
                num_iterations=0 if np.isnan(iterations) else int(iterations),
                **numbers,
            )
        )
    return tuple(found)


def chunk_number(name: str) -> int | None:
    """The chunk of the leading axis that a file of an array holds: 12 for `c.12.0.0`; None for other files."""
    parts = name.split(".")
    return (
        int(parts[1]) if parts[0] == "c" and len(parts) > 1 and parts[1].isdigit() and "partial" not in parts else None
    )


def index_chunks(path: Path, rows_per_chunk: int) -> list[int]:
    """The chunks of a shard whose index was written whole, ascending.

    The index is not compressed: a chunk that a power cut tore is one with another length.
    """
    with os.scandir(path / "index") as files:
        sizes = {chunk_number(file.name): file.stat().st_size for file in files}
    return sorted(number for number, size in sizes.items() if number is not None and size == 8 * rows_per_chunk)
