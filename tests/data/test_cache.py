import errno
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jaxdl.data import cache

ARRAYS = {
    "images": np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5, 1),
    "labels": np.array([3, 1], np.int32),
}


def same(found, arrays=ARRAYS):
    return found is not None and all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype
        for name, array in arrays.items()
    )


def test_round_trip(tmp_path):
    entry = tmp_path / "deep" / "entry"
    assert cache.fetch(entry) is None
    cache.store(entry, ARRAYS)
    found = cache.fetch(entry)
    assert same(found)
    assert not found["images"].flags.writeable
    assert [path.name for path in entry.parent.iterdir()] == ["entry"]


def test_no_single_damaged_byte_goes_unnoticed(tmp_path):
    cache.store(tmp_path / "entry", ARRAYS)
    random.seed(0)
    for path in (tmp_path / "entry").iterdir():
        whole = path.read_bytes()
        for place in range(0, len(whole), 3):
            broken = bytearray(whole)
            broken[place] ^= 1 << random.randrange(8)
            path.write_bytes(broken)
            found = cache.fetch(tmp_path / "entry")
            # A byte of the padding in a header may change nothing that is read.
            assert found is None or same(found), (path, place)
        path.write_bytes(whole)
    assert same(cache.fetch(tmp_path / "entry"))


@pytest.mark.parametrize("name", ["meta.json", "images.npy", "labels.npy"])
@pytest.mark.parametrize("kept", [None, 0, 0.3, 0.99])
def test_missing_and_truncated_files(tmp_path, name, kept):
    cache.store(tmp_path / "entry", ARRAYS)
    path = tmp_path / "entry" / name
    if kept is None:
        path.unlink()
    else:
        os.truncate(path, int(kept * path.stat().st_size))
    assert cache.fetch(tmp_path / "entry") is None
    cache.store(tmp_path / "entry", ARRAYS)
    assert same(cache.fetch(tmp_path / "entry"))


def test_pickles_are_never_loaded(tmp_path):
    cache.store(tmp_path / "entry", ARRAYS)
    np.save(tmp_path / "entry" / "labels.npy", np.array([{}]), allow_pickle=True)
    assert cache.fetch(tmp_path / "entry") is None


def test_entry_is_whole_or_absent_when_the_disk_fills(tmp_path, monkeypatch):
    flushes = []

    def full(descriptor):
        flushes.append(descriptor)
        if len(flushes) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.store(tmp_path / "entry", ARRAYS)
    assert list(tmp_path.iterdir()) == []


def test_many_writers_and_readers_at_once(tmp_path):
    entry = tmp_path / "entry"
    found = []

    def work(index):
        for _ in range(5):
            cache.store(entry, ARRAYS)
            arrays = cache.fetch(entry)
            if arrays is not None:
                found.append(same(arrays))

    with ThreadPoolExecutor(4) as pool:
        failures = [e for e in pool.map(attempt(work), range(4)) if e]
    assert not failures
    assert found and all(found)
    assert same(cache.fetch(entry))
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def attempt(work):
    def run(index):
        try:
            work(index)
        except Exception as error:
            return error
        return None

    return run


def test_leftovers_of_killed_processes_are_swept_after_a_day(tmp_path):
    old, new = tmp_path / ".entry.old", tmp_path / ".entry.new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "images.npy").write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.store(tmp_path / "entry", ARRAYS)
    assert {path.name for path in tmp_path.iterdir()} == {"entry", ".entry.new"}


def test_the_place_is_a_file(tmp_path):
    Path(tmp_path / "data").write_text("")
    with pytest.raises(OSError):
        cache.store(tmp_path / "data" / "entry", ARRAYS)
