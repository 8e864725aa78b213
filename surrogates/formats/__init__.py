"""Formats of other programs, one a file: data sets taken in from files and written to them."""

from headrace.surrogates.formats.hdf5 import HDF5
from headrace.surrogates.formats.mat import Mat
from headrace.surrogates.formats.netcdf import NetCDF
from headrace.surrogates.formats.neuraloperator import NeuralOperator
from headrace.surrogates.formats.npy import NPY
from headrace.surrogates.formats.npz import NPZ
from headrace.surrogates.formats.pdebench import PDEBench
from headrace.surrogates.formats.the_well import TheWell
from headrace.surrogates.formats.torch_file import Torch
from headrace.surrogates.formats.zarr_folder import ZarrFolder

# Of those with the same ending the first one that recognizes a file reads it: what says more of itself comes first.
FORMATS = (NeuralOperator, TheWell, PDEBench, HDF5, NPZ, NPY, ZarrFolder, Mat, NetCDF, Torch)

__all__ = [
    "FORMATS",
    "HDF5",
    "NPY",
    "NPZ",
    "Mat",
    "NetCDF",
    "NeuralOperator",
    "PDEBench",
    "TheWell",
    "Torch",
    "ZarrFolder",
]
