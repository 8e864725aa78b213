"""The manifest of a data set: what is in it, and the hash of its content."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.files import write_synced
from headrace.platform.frozen import FrozenMap
from headrace.platform.spec import Spec, spec_hash

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished data set holds: enough to tell whether another copy is the same.

    Attributes:
        count: number of samples.
        schema: what they look like.
        levels: number of samples of each difficulty level.
        incomplete: how many of them are parts of a trajectory that broke.
        content_hash: see `StoredSamples.content_hash`.
        source: the spec of the source that made it, as plain values: its problem with all that a recipe says of it, and
            how it was solved; None of an imported data set, and of one that was written before manifests told it.
        source_hash: the hash of that spec, which is the `spec_hash` in the provenance of each sample.
        label_errors: how far the samples of each level are from the truth, as far as it was measured before they were
            made; see `headrace.solvers.label_error.LabelError`.
    """

    count: int
    schema: SampleSchema
    levels: dict[str, int]
    content_hash: str
    incomplete: int = 0
    source: Mapping[str, Any] | None = None
    source_hash: str | None = None
    label_errors: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    @property
    def problem(self) -> Mapping[str, Any] | None:
        """The spec of the problem that made it, its `kind` and all its fields; None when that is not known."""
        return None if self.source is None else self.source.get("problem")

    def to_json(self) -> dict[str, object]:
        """What stands in `manifest.json`."""
        return {
            "count": self.count,
            "schema": self.schema.to_json(),
            "levels": self.levels,
            "incomplete": self.incomplete,
            "content_hash": self.content_hash,
            "source": self.source,
            "source_hash": self.source_hash,
            "label_errors": self.label_errors,
        }


def write_manifest(
    directory: str | os.PathLike[str],
    source: Spec | None = None,
    label_errors: Mapping[str, Mapping[str, object]] = FrozenMap({}),
) -> Manifest:
    """Describe a data set in its `manifest.json`.

    Args:
        directory: the data set.
        source: what made it; None when that is not known.
        label_errors: see `Manifest`.

    Raises:
        InputError: it is not a data set.
    """
    stored = StoredSamples.open(directory)
    manifest = Manifest(
        count=len(stored),
        schema=stored.schema,
        levels=dict(sorted(Counter(stored.levels).items())),
        content_hash=stored.content_hash(),
        incomplete=int(np.count_nonzero(~stored.is_whole)),
        source=None if source is None else source.model_dump(mode="json"),
        source_hash=None if source is None else spec_hash(source),
        label_errors=dict(label_errors),
    )
    write_synced(Path(directory) / MANIFEST, json.dumps(manifest.to_json(), indent=1) + "\n")
    return manifest


def read_manifest(directory: str | os.PathLike[str]) -> Manifest | None:
    """The manifest of a data set; None when it has none (it is being written, or its run was cut off).

    Raises:
        InputError: it is damaged.
    """
    path = Path(directory) / MANIFEST
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Manifest(**{**data, "schema": SampleSchema.from_json(data["schema"])})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError.single(str(path), f"not readable ({error})", "the manifest of a data set") from error
