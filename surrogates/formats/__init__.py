"""Formats of other programs, one a file: data sets taken in from files and written to them."""

from headrace.surrogates.formats.hdf5 import HDF5
from headrace.surrogates.formats.neuraloperator import NeuralOperator

FORMATS = (NeuralOperator, HDF5)

__all__ = ["FORMATS", "HDF5", "NeuralOperator"]
