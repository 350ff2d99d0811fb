"""torchvision's files: which there are, found, fetched, cut short and damaged."""

import ast
import hashlib
import importlib.util
import multiprocessing
import re
from pathlib import Path

import numpy as np
import pytest

from jaxdl import weights
from jaxdl.errors import InputError
from jaxdl.models import registry
from jaxdl.weights import published

NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture
def made(tmp_path, monkeypatch, server):
    """A small file in resnet18's stead, served; torch's folder is empty."""
    weights.write(tmp_path / "made.pth", {"a": np.arange(50000.0)})
    server.content = (tmp_path / "made.pth").read_bytes()
    digest = hashlib.sha256(server.content).hexdigest()
    name = f"resnet18-{digest[:8]}.pth"
    monkeypatch.setitem(published.FILES, "resnet18", (name, "resnet18-00000000.pth"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return name


def torch_folder(tmp_path):
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def obtain(tmp_path, server, **options):
    cache = tmp_path / "cache"
    home = server if isinstance(server, str) else server.home
    return published.obtain("resnet18", cache_dir=cache, home=home, **options)


def test_the_files_are_those_of_torchvision():
    """Read in its source, so that torch need not be imported."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None:
        pytest.skip("torchvision is not installed")
    found = {}
    for module in ("alexnet", "vgg", "resnet"):
        source = (Path(spec.origin).parent / "models" / f"{module}.py").read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and node.name.endswith("_Weights"):
                url = re.search(
                    r'IMAGENET1K_V1 = Weights\(\s*url="(.*?)"',
                    ast.get_source_segment(source, node),
                )
                found[node.name.removesuffix("_Weights").lower()] = url[1]
    ours = {name: published.HOME + files[0] for name, files in published.FILES.items()}
    assert ours.items() <= found.items()
    have = {name for name in registry.names() if registry.spec(name).torchvision}
    assert ours.keys() == have


def test_fetched_once_and_told_of(tmp_path, server, made):
    told = []
    path = obtain(tmp_path, server, progress=lambda *now: told.append(now))
    assert path == tmp_path / "cache" / "weights" / made
    assert path.read_bytes() == server.content
    assert told[-1] == (len(server.content), len(server.content))
    assert [p.name for p in path.parent.iterdir()] == [made]
    assert obtain(tmp_path, NOWHERE) == path
    assert server.asked == [f"/models/{made} None"]


def test_found_in_torchs_folder(tmp_path, made, server, monkeypatch):
    folder = torch_folder(tmp_path)
    (folder / made).write_bytes(server.content)
    assert obtain(tmp_path, NOWHERE) == folder / made
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert obtain(tmp_path, NOWHERE) == folder / made
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match="cannot be reached"):
        obtain(tmp_path, NOWHERE)


def test_an_older_file_serves_too(tmp_path, server, made, monkeypatch):
    old = f"resnet18-{hashlib.sha256(server.content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(published.FILES, "resnet18", ("resnet18-11111111.pth", old))
    folder = torch_folder(tmp_path)
    (folder / old).write_bytes(server.content)
    assert obtain(tmp_path, NOWHERE) == folder / old


def test_a_damaged_file_in_torchs_folder_is_left_there(tmp_path, server, made):
    folder = torch_folder(tmp_path)
    (folder / made).write_bytes(b"damaged")
    assert obtain(tmp_path, server).parent == tmp_path / "cache" / "weights"
    assert (folder / made).read_bytes() == b"damaged"


def test_a_damaged_file_of_ours_is_fetched_anew(tmp_path, server, made):
    obtain(tmp_path, server).write_bytes(b"damaged")
    assert obtain(tmp_path, server).read_bytes() == server.content


def test_cut_short_and_resumed_within_one_call(tmp_path, server, made):
    server.cut = size = len(server.content) // 2 - 3
    assert obtain(tmp_path, server).read_bytes() == server.content
    ranges = [asked.split(" ")[1] for asked in server.asked]
    assert ranges == ["None", f"bytes={size}-", f"bytes={2 * size}-"]


def test_cut_short_and_resumed_by_the_next_call(tmp_path, server, made):
    server.cut = 1000
    with pytest.raises(InputError, match=r"broke off: 3000 of .* 3000 bytes are kept"):
        obtain(tmp_path, server)
    part = tmp_path / "cache" / "weights" / f"{made}.part"
    assert part.read_bytes() == server.content[:3000]
    server.cut = None
    path = obtain(tmp_path, server)
    assert server.asked[-1].endswith("bytes=3000-")
    assert path.read_bytes() == server.content and not part.exists()


def test_a_server_that_cannot_resume_sends_it_all_again(tmp_path, server, made):
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    (folder / f"{made}.part").write_bytes(server.content[:1000])
    server.resumes = False
    assert obtain(tmp_path, server).read_bytes() == server.content


@pytest.mark.parametrize("rubbish", [1000, 10**6])
def test_rubbish_to_go_on_from_is_thrown_away(tmp_path, server, made, rubbish):
    """Shorter than the file, or longer, where the server says that nothing is left."""
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    (folder / f"{made}.part").write_bytes(bytes(rubbish))
    assert obtain(tmp_path, server).read_bytes() == server.content


def test_a_corrupted_download_is_never_there(tmp_path, server, made):
    server.content = server.content[:-1] + b"x"
    with pytest.raises(InputError, match=f"SHA-256 begins with .* not {made[9:17]}"):
        obtain(tmp_path, server)
    (left,) = (tmp_path / "cache" / "weights").iterdir()
    assert left.suffix == ".part" and left.read_bytes() == b""


def test_no_network(tmp_path, made):
    with pytest.raises(InputError, match="cannot be reached") as caught:
        obtain(tmp_path, NOWHERE)
    assert f"By hand: put {made} (from {NOWHERE}) into" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_server_without_the_file(tmp_path, server, made):
    server.status = 403
    with pytest.raises(InputError, match="HTTP status 403"):
        obtain(tmp_path, server)


def test_a_place_that_cannot_be_written(tmp_path, server, made):
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(InputError, match="cannot write"):
        obtain(tmp_path, server)


def _obtain(arguments):
    (name, files), cache, home = arguments
    published.FILES[name] = files
    path = published.obtain(name, cache_dir=cache, home=home)
    return path.read_bytes()


def test_several_processes_fetch_it_once(tmp_path, server, made):
    entry = ("resnet18", published.FILES["resnet18"])
    arguments = [(entry, tmp_path / "cache", server.home)] * 4
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_obtain, arguments, 1) == [server.content] * 4
    assert [p.name for p in (tmp_path / "cache" / "weights").iterdir()] == [made]
    assert len(server.asked) == 1


def test_a_given_file(tmp_path, server, made):
    path = tmp_path / "mine.pth"
    with pytest.raises(InputError, match=r"there is no file .*mine\.pth"):
        obtain(tmp_path, NOWHERE, file=path)
    path.write_bytes(b"anything")
    assert obtain(tmp_path, NOWHERE, file=path) == path
    named = tmp_path / made
    named.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"is damaged: .* fetch it again"):
        obtain(tmp_path, NOWHERE, file=named)
    named.write_bytes(server.content)
    assert obtain(tmp_path, NOWHERE, file=named) == named


def test_what_is_not_published(tmp_path):
    with pytest.raises(InputError, match="no weights are published for 'lenet5'"):
        published.obtain("lenet5", cache_dir=tmp_path)
