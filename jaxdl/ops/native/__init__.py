"""The native engine: oneDNN and a few kernels of our own, as targets of XLA's FFI.

The C++ files beside this one are compiled when the package is installed, where a
compiler is found (`setup.py`). This module loads the result, or says why it cannot.
"""

import ctypes
import functools
import importlib.machinery
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxdl import runtime

ALGORITHMS = ("direct", "taps", "small", "product", "winograd")
"""oneDNN's own, products over taps, few channels, one product, 3x3 in fewer
multiplications."""

_ONEDNN = "onednn-cpu-tbb"
_TARGETS = (
    "jaxdl_channel_sums",
    "jaxdl_materialise",
    "jaxdl_max_pool_gradient",
    "jaxdl_moments",
    "jaxdl_sgd",
    "jaxdl_sort",
    "jaxdl_sum",
)
_OTHERS = (
    "jaxdl_conv",
    "jaxdl_conv_instantiate",
    "jaxdl_conv_plan",
    "jaxdl_conv_type_id",
    "jaxdl_conv_type_info",
    "jaxdl_lanes",
)


class Geometry(NamedTuple):
    """A convolution, as the forward one that it is or is a gradient of.

    The fields are those of `convolution.h`, in its order.
    """

    algorithm: int
    """Place in `ALGORITHMS`."""
    direction: int
    """Place in `geometry.DIRECTIONS`."""
    operand_bf16: bool
    result_bf16: bool
    images: int
    height: int
    width: int
    channels: int
    rows: int
    columns: int
    outputs: int
    kernel_height: int
    kernel_width: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    bottom: int
    left: int
    right: int
    swapped: bool
    """Whether the kernel is [h, w, outputs, channels], not [.., channels, outputs]."""
    threads: int
    """Among how many our own algorithms cut the work; more would idle."""


class Plan(NamedTuple):
    """What the engine says of a convolution."""

    workspace: int
    """Bytes."""
    implementation: str
    """oneDNN's name of it."""


@functools.cache
def load() -> ctypes.CDLL | str:
    """The loaded library, its targets registered with XLA; or why there is none."""
    try:
        for name, stand_in in (("libintlc.so.5", "intlc"), ("libimf.so", "imf")):
            _open_first(Path(sys.prefix) / "lib" / name, _built(stand_in))
        for package, name in (("tbb", "libtbb.so.12"), (_ONEDNN, "libdnnl.so.3")):
            ctypes.CDLL(str(_installed(package, name)))
        library = ctypes.CDLL(str(_built("engine")))
    except OSError as error:
        return str(error)
    # Before anything is registered, for that is for good.
    taken = (*_OTHERS, *_TARGETS)
    if lacking := [name for name in taken if not hasattr(library, name)]:
        return f"built from other sources, without {lacking[0]}: install jaxdl again"
    _register(library)
    return library


def _built(name: str) -> Path:
    """A library built from this folder."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(name + suffix)
        if path.exists():
            return path
    raise FileNotFoundError(
        "it was not built when jaxdl was installed: pip install -v says why"
    )


def _installed(package: str, name: str) -> Path:
    """A library that came in a wheel."""
    try:
        for file in metadata.files(package) or []:
            if file.name == name:
                return Path(str(file.locate()))
    except metadata.PackageNotFoundError:
        pass
    raise FileNotFoundError(f"{name} of the package {package} is not installed")


def _open_first(*paths: Path) -> None:
    """Opens the first of the libraries that exists."""
    ctypes.CDLL(str(next(path for path in paths if path.exists())))


def _register(library: ctypes.CDLL) -> None:
    jax.devices("cpu")  # types registered before there is a backend come too late
    for name in ("jaxdl_conv_type_id", "jaxdl_conv_type_info"):
        getattr(library, name).restype = ctypes.c_void_p
    library.jaxdl_conv_plan.restype = ctypes.c_int64
    library.jaxdl_lanes.restype = ctypes.c_int64
    jax.ffi.register_ffi_type(
        "jaxdl_conv",
        {
            "type_id": _capsule(library.jaxdl_conv_type_id()),
            "type_info": _capsule(library.jaxdl_conv_type_info()),
        },
        platform="cpu",
    )
    conv = {
        "instantiate": jax.ffi.pycapsule(library.jaxdl_conv_instantiate),
        "execute": jax.ffi.pycapsule(library.jaxdl_conv),
    }
    jax.ffi.register_ffi_target("jaxdl_conv", conv, platform="cpu")
    for name in _TARGETS:
        target = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, target, platform="cpu")


def _capsule(pointer: int) -> Any:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return make(pointer, None, None)


@functools.cache
def lanes() -> int:
    """Floats in the processor's widest vectors: 16, 8 or 4; 0 without the engine."""
    library = load()
    return 0 if isinstance(library, str) else library.jaxdl_lanes()


@functools.cache
def has_amx() -> bool:
    """Whether the processor multiplies matrices in bfloat16, on Linux."""
    return "amx_bf16" in runtime.cpu_flags()


@functools.lru_cache(maxsize=4096)
def plan(geometry: Geometry) -> Plan | str:
    """What the convolution needs, or why the engine cannot compute it."""
    library = load()
    if isinstance(library, str):
        return library
    said = ctypes.create_string_buffer(256)
    fields = (ctypes.c_int64 * len(geometry))(*map(int, geometry))
    workspace = library.jaxdl_conv_plan(fields, said, ctypes.c_size_t(255))
    text = said.value.decode(errors="replace")
    return text if workspace < 0 else Plan(workspace, text)
