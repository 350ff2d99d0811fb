"""Whatever a weight file holds, it is read or refused in bounded memory and time."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest

from jaxdl import weights
from jaxdl.errors import InputError

FILES = {name: (content, refusal) for name, content, refusal in hostile.files()}
MEGABYTES = 96


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What a process with little memory says of each of `FILES`."""
    if sys.platform != "linux":
        pytest.skip("limits of memory are Linux's")
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)
    good = hostile.archive(hostile.state(hostile.tensor()))
    (folder / "good").write_bytes(good)
    root = Path(hostile.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, hostile.__file__, folder, str(MEGABYTES)],
        env={**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    created = {path.name for path in folder.iterdir()} - FILES.keys()
    assert created == {"good"}, "something in a file was executed"
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(refusals, name):
    found, (_, refusal) = refusals[name], FILES[name]
    assert re.search(refusal, found), found
    assert "NOT REFUSED PROPERLY" not in found
    assert len(found) < 1500 and "\n" not in found
    assert "arrays" in found or f"/{name} " in found


def test_that_memory_is_limited(refusals):
    assert refusals["good"] == "1 arrays"
    assert refusals["too much"] == "MemoryError"


@pytest.fixture
def small(tmp_path):
    """One file of each format, and what is in it."""
    state = {"a": np.arange(4, dtype=np.float32), "b": np.array([[1], [2]])}
    weights.write(tmp_path / "zip.pth", state)
    weights.write(tmp_path / "safe.safetensors", state)
    count = (4).to_bytes(8, "little")
    pickled = hostile.state(hostile.tensor())
    (tmp_path / "stream.pth").write_bytes(hostile.stream(pickled, count + bytes(16)))
    return sorted(tmp_path.iterdir())


def test_files_cut_short_are_refused(small):
    for path in small:
        whole = path.read_bytes()
        assert weights.read(path)
        for length in {*range(0, len(whole), 7), *range(len(whole) - 30, len(whole))}:
            path.write_bytes(whole[:length])
            with pytest.raises(InputError):
                weights.read(path)


def test_any_byte_may_be_wrong(small):
    """Each is refused or read, whatever byte changes; the zip's numbers have a CRC."""
    for path in small:
        whole, good = path.read_bytes(), weights.read(path)
        good = {name: value.copy() for name, value in good.items()}
        refused = 0
        for place in range(0, len(whole), 2):
            wrong = bytearray(whole)
            wrong[place] ^= (1, 0x80, 0xFF)[place // 2 % 3]
            path.write_bytes(wrong)
            try:
                found = weights.read(path)
            except InputError:
                refused += 1
            else:
                assert all(isinstance(value, np.ndarray) for value in found.values())
                if path.name == "zip.pth":
                    for name in good.keys() & found.keys():
                        np.testing.assert_array_equal(found[name], good[name])
        assert refused > len(whole) / 20


def test_a_module_saved_whole_is_refused_by_name(tmp_path):
    import torch_reference as reference

    torch, path = reference.torch(), tmp_path / "net.pth"
    for zipped in (True, False):
        torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(InputError, match=r"'torch\.nn\.modules\.linear\.Linear'"):
            weights.read(path)


def test_what_is_no_file(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("<html>404 not found</html>")
    for name, refusal in {"empty": "empty is empty", "text": "text is not a f"}.items():
        with pytest.raises(InputError, match=refusal):
            weights.read(tmp_path / name)
    for name in ("missing", "."):
        with pytest.raises(InputError, match="cannot read"):
            weights.read(tmp_path / name)
