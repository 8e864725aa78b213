"""Random fields, parameters, permeability."""
