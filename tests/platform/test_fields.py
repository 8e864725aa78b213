"""Grids and schemas: coordinates, sizes, and the way through JSON."""

import dataclasses
import json

import numpy as np
import pytest

from headrace.platform.fields import FieldSpec, Grid, Mesh, SampleSchema, require_grid

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


def test_schemas_differ_in_what_they_name():
    same = SampleSchema.from_json(json.loads(json.dumps(SCHEMA.to_json())))
    assert SCHEMA.differences(same) == []
    other = dataclasses.replace(
        SCHEMA,
        inputs=(FieldSpec(name="permeability", unit="darcy"), FieldSpec(name="velocity", components=3, unit="m/s")),
        parameters=(FieldSpec(name="mach"),),
        domain=Grid(shape=(5, 4), extent=(1.0, 2.5), periodic=(True, True), location="nodes"),
        times=(0.5, 1.0),
    )
    assert SCHEMA.differences(other) == [
        "unit of permeability: [m^2], and not [darcy]",
        "components of velocity: 2, and not 3",
        "parameters: reynolds, inflow x 2, and not mach",
        "times: 3 from 0.5 to 1.5, and not 2 from 0.5 to 1",
        "points of the grid: (3, 4), and not (5, 4)",
        "extent: (1.0, 2.0), and not (1.0, 2.5)",
        "periodic axes: (False, True), and not (True, True)",
        "location of the values: cells, and not nodes",
    ]
    finer = dataclasses.replace(SCHEMA, domain=dataclasses.replace(require_grid(SCHEMA.domain), shape=(6, 8)))
    assert SCHEMA.differences(finer, resolution=False) == []


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


POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [0.1, 1 / 3], [1.0, 1.0]])
CELLS = np.array([[0, 1, 2], [1, 3, 2]])
MESH = Mesh(points=POINTS, cells=CELLS)


def test_meshes_are_equal_by_content():
    assert Mesh(points=POINTS.copy(), cells=CELLS.astype(np.int32)) == MESH
    assert hash(Mesh(points=POINTS.tolist(), cells=CELLS.tolist())) == hash(MESH)
    moved = POINTS.copy()
    moved[2, 1] = np.nextafter(moved[2, 1], 1)
    assert Mesh(points=moved, cells=CELLS) != MESH
    assert Mesh(points=POINTS, cells=CELLS[::-1]) != MESH
    assert SCHEMA.domain != MESH
    assert MESH.shape == (4,) and MESH.dim == 2
    with pytest.raises(ValueError, match="read-only"):
        MESH.points[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        MESH.points = POINTS


def test_a_schema_on_a_mesh_survives_json_bit_for_bit():
    schema = dataclasses.replace(SCHEMA, domain=MESH)
    back = SampleSchema.from_json(json.loads(json.dumps(schema.to_json())))
    assert back == schema and hash(back) == hash(schema)
    assert np.array_equal(back.domain.points, POINTS) and np.array_equal(back.domain.cells, CELLS)
    assert schema.sample_nbytes == 4 * (4 * (3 + 3 * 1) + 3)
    assert back != SCHEMA


def test_grids_that_were_written_before_there_were_meshes_are_read():
    old = dataclasses.asdict(SCHEMA)
    assert "kind" not in old["domain"]
    assert SampleSchema.from_json(json.loads(json.dumps(old))) == SCHEMA


@pytest.mark.parametrize(
    ("points", "cells", "words"),
    [
        (POINTS[0], CELLS, r"points have shape \(2,\), expected \(num_points, dim\)"),
        (POINTS, CELLS[:, :2], r"cells are int64 of shape \(2, 2\), expected integers of shape \(num_cells, 3\)"),
        (POINTS, CELLS.astype(float), "cells are float64"),
        (POINTS, CELLS + 1, "cells name the points 1 to 4, there are 0 to 3"),
        (np.full((4, 2), np.nan), CELLS, "not finite"),
    ],
)
def test_arrays_that_make_no_mesh_are_refused(points, cells, words):
    with pytest.raises(ValueError, match=words):
        Mesh(points=points, cells=cells)


@pytest.mark.parametrize("damage", [{"points": "AAA"}, {"points": "AAAA"}, {"dim": 7}, {"cells": "/////w=="}])
def test_a_damaged_mesh_is_told(damage):
    data = dataclasses.replace(SCHEMA, domain=MESH).to_json()
    data["domain"] |= damage
    with pytest.raises(ValueError, match="not a sample schema"):
        SampleSchema.from_json(data)


def test_what_needs_a_grid_says_how_to_get_one():
    assert require_grid(SCHEMA.domain) is SCHEMA.domain
    with pytest.raises(
        ValueError, match=r"on a mesh \(Mesh\(4 points and 2 cells in 2-D, .*problems on meshes take output: grid"
    ):
        require_grid(MESH)
