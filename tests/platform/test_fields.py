"""Grids and schemas: coordinates, sizes, and the way through JSON."""

import json

import numpy as np
import pytest

from headrace.platform.fields import FieldSpec, Grid, SampleSchema

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="permeability", unit="m^2"), FieldSpec(name="velocity", components=2, unit="m/s")),
    outputs=(FieldSpec(name="pressure", unit="Pa"),),
    parameters=(FieldSpec(name="reynolds"), FieldSpec(name="inflow", components=2)),
    domain=Grid(shape=(3, 4), extent=(1.0, 2.0), periodic=(False, True), location="cells"),
    times=(0.5, 1.0, 1.5),
)


def test_nodes_reach_both_ends_unless_periodic():
    grid = Grid(shape=(5, 4), extent=(2.0, 2.0), periodic=(False, True))
    assert grid.spacing == (0.5, 0.5)
    x, y = grid.coordinates()
    np.testing.assert_allclose(x, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(y, [0, 0.5, 1, 1.5])  # the point at 2 is the one at 0


def test_cells_are_centred():
    grid = Grid(shape=(4, 2), extent=(1.0, 3.0), periodic=(False, True), location="cells")
    assert grid.spacing == (0.25, 1.5)
    x, y = grid.coordinates()
    np.testing.assert_allclose(x, [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(y, [0.75, 2.25])


def test_a_grid_has_as_many_extents_as_axes():
    with pytest.raises(ValueError, match=r"shape \(4, 4\), extent \(1.0,\) and periodic \(False, False\) differ"):
        Grid(shape=(4, 4), extent=(1.0,), periodic=(False, False))


def test_components_are_counted():
    assert (SCHEMA.num_input_channels, SCHEMA.num_output_channels, SCHEMA.num_parameters) == (3, 1, 3)


def test_bytes_of_a_sample_are_those_of_its_arrays():
    arrays = (np.zeros((3, 3, 4), np.float32), np.zeros((3, 1, 3, 4), np.float32), np.zeros(3, np.float32))
    assert SCHEMA.sample_nbytes == sum(array.nbytes for array in arrays)


def test_a_schema_survives_json():
    assert SampleSchema.from_json(json.loads(json.dumps(SCHEMA.to_json()))) == SCHEMA


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("times"),
        lambda data: data["domain"].pop("extent"),
        lambda data: data["inputs"][0].update(colour="red"),
        lambda data: data.update(domain=None),
        lambda data: data["domain"].update(extent=[1.0]),
    ],
)
def test_a_damaged_schema_is_told(damage):
    data = SCHEMA.to_json()
    damage(data)
    with pytest.raises(ValueError, match=r"not a sample schema|differ in length"):
        SampleSchema.from_json(data)
