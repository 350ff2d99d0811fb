"""The weights that torchvision has published: which files, and how to come by them.

A file's name carries the beginning of its SHA-256, and no file is used without it.
"""

import hashlib
import os
from pathlib import Path

from jaxdl.data import network
from jaxdl.errors import InputError

HOME = "https://download.pytorch.org/models/"

FILES = {
    "alexnet": ("alexnet-owt-7be5be79.pth", "alexnet-owt-4df8aa71.pth"),
    "vgg11": ("vgg11-8a719046.pth", "vgg11-bbd30ac9.pth"),
    "vgg13": ("vgg13-19584684.pth", "vgg13-c768596a.pth"),
    "vgg16": ("vgg16-397923af.pth",),
    "vgg19": ("vgg19-dcbb9e9d.pth",),
    "vgg11_bn": ("vgg11_bn-6002323d.pth",),
    "vgg13_bn": ("vgg13_bn-abd245e5.pth",),
    "vgg16_bn": ("vgg16_bn-6c64b313.pth",),
    "vgg19_bn": ("vgg19_bn-c79401a0.pth",),
    "resnet18": ("resnet18-f37072fd.pth", "resnet18-5c106cde.pth"),
    "resnet34": ("resnet34-b627a593.pth", "resnet34-333f7ec4.pth"),
    "resnet50": ("resnet50-0676ba61.pth", "resnet50-19c8e357.pth"),
    "resnet101": ("resnet101-63fe2227.pth", "resnet101-5d3b4d8f.pth"),
    "resnet152": ("resnet152-394f9c45.pth", "resnet152-b121ed2d.pth"),
}
"""torchvision's IMAGENET1K_V1 by architecture (1000 classes, colour images of 224x224).
The first file is what torchvision 0.28 fetches, the second what older versions did."""


def obtain(
    name: str,
    *,
    file: Path | None = None,
    cache_dir: Path,
    home: str = HOME,
    progress: network.Progress | None = None,
) -> Path:
    """A file with the weights of an architecture: given, found, or fetched.

    Args:
      name: a key of `FILES`; any architecture where the file is given.
      file: the file to take; only if it bears a published name is its digest checked.
      cache_dir: downloads go to its folder "weights". That and torch's own folder of
        downloads (under TORCH_HOME, XDG_CACHE_HOME or ~/.cache) are searched first.
      home: URL of the folder with the published files.
      progress: told of a download.

    Raises:
      InputError: no such file, another digest, nothing published, or no network; the
        message says how to hand the file over.
    """
    if file is not None:
        if not file.is_file():
            raise InputError(f"there is no file {file}; give a .pth or .safetensors")
        known = any(file.name in names for names in FILES.values())
        if known and (fault := _fault(file)):
            raise InputError(f"{fault}; fetch it again from {home}{file.name}")
        return file
    if name not in FILES:
        raise InputError(
            f"no weights are published for {name!r}, only for {', '.join(FILES)}; "
            "give a file"
        )
    ours = cache_dir / "weights"
    faults: list[str] = []
    for folder in (ours, _folder_of_torch()):
        for path in (folder / file_name for file_name in FILES[name]):
            if not path.is_file():
                continue
            if not (fault := _fault(path)):
                return path
            faults.append(fault)
            if folder == ours:  # fetched anew; other people's folders are let be
                path.unlink(missing_ok=True)
    newest = FILES[name][0]
    try:
        network.download(home + newest, ours / newest, _digest(newest), progress)
    except InputError as error:
        raise InputError(
            "; ".join([*faults, str(error)])
            + f". By hand: put {newest} (from {home}) into {ours}"
        ) from error
    return ours / newest


def _folder_of_torch() -> Path:
    """Where `torch.hub` keeps what it has downloaded."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or f"{cache}/torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def _digest(name: str) -> str:
    return Path(name).stem.rpartition("-")[2]


def _fault(path: Path) -> str | None:
    """Why it is not the file that its name says, or None if it is."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"cannot read {path}: {error.strerror or error}"
    wanted = _digest(path.name)
    if digest.startswith(wanted):
        return None
    return f"{path} is damaged: its SHA-256 begins with {digest[:8]}, not {wanted}"
