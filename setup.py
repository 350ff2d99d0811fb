"""Builds the native engine where it can be built; all else is in pyproject.toml.

Without a C++ compiler, or with anything else missing, the installation goes on and says
so, and jaxdl computes with its pure-JAX forms.
"""

import platform
import sys
from importlib import metadata, util
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = Path("jaxdl/ops/native")
ONEDNN = "onednn-cpu-tbb"


def installed(package: str, name: str) -> Path:
    """Where a wheel has put a file of that name."""
    try:
        files = metadata.files(package) or []
        return next(Path(f.locate()).resolve() for f in files if f.name == name)
    except (metadata.PackageNotFoundError, StopIteration):
        raise CompileError(f"{name} of {package} is not installed") from None


class BuildNative(build_ext):
    """Looks the headers up only when something is to be built."""

    def build_extension(self, ext: Extension) -> None:
        """Builds one library; a CompileError is a warning, as all are optional."""
        if ext.name.endswith(".engine"):
            jaxlib = util.find_spec("jaxlib")
            if jaxlib is None or jaxlib.origin is None:
                raise CompileError("jaxlib is not installed")
            headers = (
                installed("onednn-devel-cpu-tbb", "dnnl.hpp"),
                installed("tbb-devel", "task_arena.h"),
            )
            ext.include_dirs += [
                str(Path(jaxlib.origin).with_name("include")),
                *(
                    str(next(p for p in header.parents if p.name == "include"))
                    for header in headers
                ),
            ]
            ext.extra_objects += [
                str(installed(ONEDNN, "libdnnl.so.3")),
                str(installed("tbb", "libtbb.so.12")),
            ]
        super().build_extension(ext)


def stand_in(name: str, soname: str, *arguments: str) -> Extension:
    """A library under the name of one of Intel's: see intel.c."""
    return Extension(
        f"jaxdl.ops.native.{name}",
        [str(NATIVE / "intel.c")],
        extra_link_args=[f"-Wl,-soname,{soname}", *arguments],
        optional=True,
    )


engine = Extension(
    "jaxdl.ops.native.engine",
    sorted(map(str, NATIVE.glob("*.cc"))),
    depends=sorted(map(str, NATIVE.glob("*.h"))),
    language="c++",
    extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-g0",
        "-fno-trapping-math",
        "-fvisibility=hidden",
        "-mprefer-vector-width=512",
        "-Wno-return-type",  # in XLA's headers
    ],
    extra_link_args=["-Wl,--unresolved-symbols=ignore-in-shared-libs"],
    optional=True,
)
stand_ins = [
    stand_in("intlc", "libintlc.so.5"),
    stand_in("imf", "libimf.so", "-Wl,--no-as-needed", "-lm"),
]
here = sys.platform == "linux" and platform.machine() == "x86_64"
setup(
    ext_modules=[*stand_ins, engine] if here else [],
    cmdclass={"build_ext": BuildNative},
)
