"""The formats: how a forecast becomes a file, and how the file is called again to see that it says the same."""

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from headrace.surrogates.capabilities import ModelFormat
from headrace.surrogates.portable.forecast import Forecast

type Call = Callable[..., Tensor]
"""A model that was read from a file, called with tensors."""


class AbstractModelFormat(ABC):
    """One way to write a forecast so that a program without Headrace can call it."""

    name: ClassVar[ModelFormat]
    file: ClassVar[str]
    without_fft: ClassVar[bool] = False

    def missing(self) -> tuple[str, str] | None:
        """What it needs and is not there, and the command that brings it; or None."""
        return None

    @abstractmethod
    def write(self, forecast: Forecast, example: tuple[Tensor, ...], path: Path, about: Mapping[str, str]) -> None:
        """Write a file that takes any number of samples.

        Args:
            forecast: the model.
            example: arguments for a few samples; more than one, or 1 is taken for a property of the model.
            path: the file.
            about: words that go into the file where the format has a place for them.
        """

    @abstractmethod
    def read(self, path: Path) -> Call:
        """The model of a file, as a program would call it."""

    def versions(self) -> dict[str, str]:
        """Of the libraries that wrote it."""
        return {"torch": torch.__version__}


class Onnx(AbstractModelFormat):
    """ONNX, for ONNX Runtime and other programs that read it."""

    name = "onnx"
    file = "model.onnx"
    without_fft = True
    packages = ("onnx", "onnxruntime", "onnxscript")

    def missing(self) -> tuple[str, str] | None:
        """ONNX's packages are optional."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return (f"{' and '.join(absent)} installed", "Run: pip install 'headrace[export]'") if absent else None

    def write(self, forecast: Forecast, example: tuple[Tensor, ...], path: Path, about: Mapping[str, str]) -> None:
        """By torch's exporter, from the exported program."""
        program = torch.onnx.export(
            _exported(forecast, example),
            (),
            input_names=list(forecast.names),
            output_names=["outputs"],
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        _name_batch(model)
        for key, text in about.items():
            model.metadata_props.add(key=key, value=text)
        path.write_bytes(model.SerializeToString())

    def read(self, path: Path) -> Call:
        """By ONNX Runtime, on the CPU."""
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [given.name for given in session.get_inputs()]

        def call(*given: Tensor) -> Tensor:
            arrays = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
            return torch.from_numpy(session.run(None, arrays)[0])

        return call

    def versions(self) -> dict[str, str]:
        """With those of ONNX."""
        return {**super().versions(), **{name: version(name) for name in self.packages}}


class TorchExport(AbstractModelFormat):
    """The program that `torch.export` made, for Python with torch and nothing else."""

    name = "torch-export"
    file = "model.pt2"

    def write(self, forecast: Forecast, example: tuple[Tensor, ...], path: Path, about: Mapping[str, str]) -> None:
        """By `torch.export.save`."""
        torch.export.save(_exported(forecast, example), path, extra_files=dict(about))

    def read(self, path: Path) -> Call:
        """By `torch.export.load`."""
        call: Call = torch.export.load(path).module()
        return call


class AheadOfTime(AbstractModelFormat):
    """A library compiled for this kind of processor, for C, C++ and Fortran through libtorch."""

    name = "aoti"
    file = "model.aoti.pt2"

    def missing(self) -> tuple[str, str] | None:
        """It compiles C++."""
        if compiler() is not None:
            return None
        return "a C++ compiler", "None was found as g++, clang++ or $CXX. On Debian and Ubuntu: apt install g++"

    def write(self, forecast: Forecast, example: tuple[Tensor, ...], path: Path, about: Mapping[str, str]) -> None:
        """By AOTInductor."""
        inductor = importlib.import_module("torch._inductor")
        options = {
            # Else the number of threads of this process is compiled in.
            "cpp.dynamic_threads": True,
            "aot_inductor.metadata": dict(about),
        }
        inductor.aoti_compile_and_package(
            _exported(forecast, example), package_path=str(path), inductor_configs=options
        )

    def read(self, path: Path) -> Call:
        """By torch's loader, which is the one that C++ uses."""
        call: Call = importlib.import_module("torch._inductor").aoti_load_package(str(path))
        return call

    def versions(self) -> dict[str, str]:
        """With the instructions that it was compiled for."""
        return {**super().versions(), "processor": torch.backends.cpu.get_cpu_capability()}


class TorchScript(AbstractModelFormat):
    """TorchScript, which torch no longer develops, for programs that load it: FTorch, older libtorch."""

    name = "torchscript"
    file = "model.torchscript.pt"

    def write(self, forecast: Forecast, example: tuple[Tensor, ...], path: Path, about: Mapping[str, str]) -> None:
        """Traced: the code of a network branches on its configuration alone, and sizes are followed."""
        traced = torch.jit.trace(forecast, example, check_trace=False)
        torch.jit.save(traced, str(path), _extra_files=dict(about))

    def read(self, path: Path) -> Call:
        """By `torch.jit.load`."""
        call: Call = torch.jit.load(str(path))
        return call


FORMATS: dict[str, AbstractModelFormat] = {
    one.name: one for one in (Onnx(), TorchExport(), AheadOfTime(), TorchScript())
}


def compiler() -> str | None:
    """The C++ compiler that there is, or None."""
    return next(
        (found for name in (os.environ.get("CXX", ""), "g++", "clang++") if (found := shutil.which(name))), None
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say of their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _exported(forecast: Forecast, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(forecast, example, dynamic_shapes={"given": tuple({0: batch} for _ in example)})


def _name_batch(model: object) -> None:
    """Call the first axis "batch"; torch's exporter calls it by the symbol that it happened to have."""
    graph = model.graph  # type: ignore[attr-defined]
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    if not symbol:
        return
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{re.escape(symbol)}\b", "batch", dim.dim_param)
