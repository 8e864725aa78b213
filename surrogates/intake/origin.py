"""Origin: what an exported file says of itself, from which the same data set is made again."""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np

from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.intake.arrays import Container
from headrace.surrogates.intake.complete import Complete
from headrace.surrogates.intake.layout import Layout
from headrace.surrogates.intake.reading import Reading, read

ORIGIN = "headrace_origin"
"""Where an exported file says its schema, and the words that the numbers of the provenance stand for; JSON."""

INDEX, PROVENANCE = "headrace/index", "headrace/provenance"
"""Arrays of an exported file: the index of each sample, and where it came from (see `encode_provenance`)."""


def completed(container: Container, text: str | None) -> Container:
    """A file that Headrace exported, as its samples; another one as it is.

    Args:
        container: the file, with its layout.
        text: what it says as `headrace_origin`; None when it says nothing.

    Raises:
        InputError: what it says is damaged, or contradicts its arrays.
    """
    if text is None or container.layout is None:
        return container
    where = f"{container.path}: {ORIGIN}"
    try:
        found = json.loads(text)
        schema = SampleSchema.from_json(found["schema"])
        names = {str(name): [str(word) for word in words] for name, words in found["names"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError.single(where, f"not readable ({error})", "the JSON of a data set's origin") from error
    reading = read(container, Layout())
    counts = (schema.num_input_channels, schema.num_output_channels, schema.num_parameters)
    there = (reading.schema.num_input_channels, reading.schema.num_output_channels, reading.schema.num_parameters)
    if counts != there or reading.schema.domain.shape != schema.domain.shape or reading.schema.times != schema.times:
        value = "of other fields than the arrays"
        raise InputError.single(where, value, "the schema of the arrays", "Was the file changed? Take it out then.")
    table = container.arrays.get(PROVENANCE)
    if table is not None and table.values.shape[:1] != (len(reading),):
        raise InputError.single(
            f"{container.path}: {PROVENANCE}", f"of shape {table.values.shape}", f"{len(reading)} rows"
        )

    def batches() -> Iterator[SampleBatch]:
        return _batches(reading, container, names)

    samples = Complete(schema=schema, count=len(reading), read=batches)
    return dataclasses.replace(container, samples=samples)


def _batches(reading: Reading, container: Container, names: dict[str, list[str]]) -> Iterator[SampleBatch]:
    from headrace.platform.dataset.layout import decode_provenance

    table, start = container.arrays.get(PROVENANCE), 0
    for batch in reading.batches():
        if table is None:
            yield batch
            continue
        rows = np.asarray(table.values[slice(start, start + len(batch)), slice(0, table.values.shape[1])])
        start += len(batch)
        try:
            provenance = decode_provenance(rows, batch.indices, names)
        except (KeyError, IndexError, ValueError) as error:
            raise InputError.single(
                f"{container.path}: {PROVENANCE}", f"not readable ({error})", f"numbers as {ORIGIN} explains them"
            ) from error
        yield dataclasses.replace(batch, provenance=provenance)
