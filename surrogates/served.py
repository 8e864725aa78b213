"""What MLflow loads and serves: a trained surrogate that takes and gives arrays by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from headrace.platform.errors import InputError
from headrace.platform.tracking.models import FLAG, input_names
from headrace.surrogates.named import to_names
from headrace.surrogates.trained import TrainedSurrogate, load


class Params(TypedDict, total=False):
    """What a request may say beside its arrays."""

    times: Sequence[float]
    seed: int


class Served:
    """A trained surrogate as MLflow calls it."""

    def __init__(self, model: TrainedSurrogate) -> None:
        """Serve a model."""
        self.model = model

    def predict(self, model_input: Mapping[str, np.ndarray], params: Params | None = None) -> dict[str, np.ndarray]:
        """Predict for a batch.

        Args:
            model_input: each field and parameter by name, with a leading axis of samples.
            params: `times`, where there are several, and `seed`, where the network draws.

        Returns:
            Each output field by name, and which samples are outside of what training saw.

        Raises:
            InputError: see `TrainedSurrogate.predict`.
        """
        schema, names = self.model.schema, input_names(self.model.schema)
        expected = f"arrays by name: {', '.join(names)}"
        if not isinstance(model_input, Mapping):
            raise InputError.single("the input", f"a {type(model_input).__name__}", expected)
        if unknown := sorted(set(model_input) - set(names)):
            raise InputError.single("the input", f"with {', '.join(unknown)}", expected)
        given = [(spec.name, model_input.get(name)) for name, spec in names.items()]
        fields, scalars = (
            {name: values for name, values in part if values is not None}
            for part in (given[: len(schema.inputs)], given[len(schema.inputs) :])
        )
        asked, seed = (params or {}).get("times"), int((params or {}).get("seed", 0))
        times = self.model.chosen_times(None if asked is None or not len(asked) else [float(time) for time in asked])
        arrays = self.model.given(fields, scalars)
        said = self.model.predict_given(arrays, times, when_outside="ignore", seed=seed)
        outside = self.model.valid_range.outside(arrays.inputs, arrays.parameters, times)
        return {**to_names(said, schema, is_batch=True), FLAG: outside.samples}


def _load_pyfunc(data_path: str) -> Served:
    """MLflow's `loader_module` entry: a checkpoint, or a folder that holds one."""
    return Served(load(Path(data_path)))
