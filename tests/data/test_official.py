import dataclasses
import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from unittest import mock

import numpy as np
import pytest

from jaxdl.data import cache, network, official, raw
from jaxdl.errors import InputError


def get(made, cache_dir, *, raw_dir=None, auto=False, notices=None, units=None):
    return official.examples(
        made.unit.entry,
        raw_dir=raw_dir,
        cache_dir=cache_dir,
        auto=auto,
        notices=[] if notices is None else notices,
        units=units or made.units,
    )


def same(found, made):
    return found.keys() == made.examples.keys() and all(
        np.array_equal(found[split][i], made.examples[split][i])
        for split in found
        for i in (0, 1)
    )


@pytest.fixture(params=["mnist", "svhn"])
def made(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def parses(monkeypatch):
    """Counts how often raw files are parsed."""
    calls = []
    read = raw.read

    def counted(*arguments):
        calls.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(raw, "read", counted)
    return calls


def test_the_second_start_does_not_parse(made, tmp_path, parses):
    for _ in range(3):
        assert same(get(made, tmp_path / "cache", raw_dir=made.folder), made)
    assert len(parses) == 1


def test_the_cache_serves_without_the_raw_files(made, tmp_path, offline):
    get(made, tmp_path / "cache", raw_dir=made.folder)
    assert same(get(made, tmp_path / "cache"), made)


def test_raw_files_damaged_after_caching_are_an_error(made, tmp_path):
    get(made, tmp_path / "cache", raw_dir=made.folder)
    path = sorted(made.folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:-9])
    for auto in (True, False):
        with pytest.raises(InputError, match=path.name):
            get(made, tmp_path / "cache", raw_dir=made.folder, auto=auto)


def test_a_damaged_cache_is_made_anew(made, tmp_path, parses):
    get(made, tmp_path / "cache", raw_dir=made.folder)
    path = tmp_path / "cache" / "data" / made.unit.entry / "train_images.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert same(get(made, tmp_path / "cache", raw_dir=made.folder), made)
    assert len(parses) == 2
    assert same(get(made, tmp_path / "cache", raw_dir=made.folder), made)
    assert len(parses) == 2


def test_a_cache_that_cannot_be_written_is_done_without(made, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    notices = []
    found = get(made, tmp_path / "cache", raw_dir=made.folder, notices=notices)
    assert same(found, made)
    assert len(notices) == 1 and str(tmp_path / "cache") in notices[0]


def test_no_such_folder(made, tmp_path):
    for auto in (True, False):
        with pytest.raises(
            InputError, match=r"--raw-dir=.*/no cannot be read: No such"
        ):
            get(made, tmp_path, raw_dir=tmp_path / "no", auto=auto)


def test_some_files_are_missing(made, tmp_path):
    path = sorted(made.folder.iterdir())[0]
    path.unlink()
    for auto in (True, False):
        with pytest.raises(InputError, match=path.name) as caught:
            get(made, tmp_path, raw_dir=made.folder, auto=auto)
        assert "\n" not in str(caught.value) and "JAXDL_RAW_DIR" in str(caught.value)


def test_a_folder_for_the_other_set(mnist, svhn, tmp_path, offline):
    """As when JAXDL_RAW_DIR names MNIST's files and SVHN is asked for."""
    units = mnist.units | svhn.units
    with pytest.raises(official.UnavailableError):  # falls back
        get(
            svhn,
            tmp_path / "c",
            raw_dir=mnist.folder,
            auto=True,
            units=units,
            notices=(notices := []),
        )
    (notice,) = notices
    assert notice.startswith(f"--raw-dir={mnist.folder} holds files of another set")
    with pytest.raises(InputError, match=r"lacks train_32x32\.mat") as caught:
        get(svhn, tmp_path / "c", raw_dir=mnist.folder, auto=False, units=units)
    assert not isinstance(caught.value, official.UnavailableError)
    get(svhn, tmp_path / "c", raw_dir=svhn.folder)  # then it is in the cache
    found = get(svhn, tmp_path / "c", raw_dir=mnist.folder, auto=False, units=units)
    assert same(found, svhn)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="lacks") as caught:
        get(svhn, tmp_path / "c", raw_dir=empty, auto=True, units=units)
    assert not isinstance(caught.value, official.UnavailableError)


def test_download(made, serve, tmp_path, no_tfds, capfd):
    unit = serve(made)
    units = {unit.entry: (unit,)}
    assert same(get(made, tmp_path / "cache", units=units), made)
    # Nothing is printed, and of the downloads nothing is left.
    assert capfd.readouterr() == ("", "")
    assert not list((tmp_path / "cache").rglob("*.gz"))
    assert not list((tmp_path / "cache").rglob("*.mat"))
    # What TFDS has prepared serves when the cache is lost, without a network.
    entry = tmp_path / "cache" / "data" / unit.entry
    (entry / "meta.json").unlink()
    gone = dataclasses.replace(unit, home="http://nowhere.invalid/")
    assert same(get(made, tmp_path / "cache", units={unit.entry: (gone,)}), made)
    assert cache.fetch(entry) is not None


def test_what_tfds_has_prepared_is_used(made, serve, tmp_path, monkeypatch):
    from jaxdl.data import tfds_builders

    unit = serve(made)
    source = tfds_builders.source(unit.builder[0], unit.urls(), unit.checksums)
    tfds_builders.prepare(unit.builder[0], source, tmp_path / "standard")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "standard"))
    assert same(get(made, tmp_path / "cache"), made)  # whose home is nowhere


def test_damage_in_what_tfds_has_prepared(made, serve, tmp_path, no_tfds):
    unit = serve(made)
    units = {unit.entry: (unit,)}
    get(made, tmp_path / "cache", units=units)
    (tmp_path / "cache" / "data" / unit.entry / "meta.json").unlink()
    (record,) = (tmp_path / "cache" / "tfds").rglob("*train.array_record*")
    record.write_bytes(b"\0" * record.stat().st_size)
    assert same(get(made, tmp_path / "cache", units=units), made)  # downloaded anew


def test_too_few_examples_prepared(svhn, serve, tmp_path):
    from jaxdl.data import tfds_builders

    unit = serve(svhn)
    source = tfds_builders.source("svhn_cropped", unit.urls(), unit.checksums)
    folder = tfds_builders.prepare("svhn_cropped", source, tmp_path)
    (train,), (test,) = folder.glob("*train*"), folder.glob("*test*")
    train.write_bytes(test.read_bytes())
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"23"', '"7"'))
    found = tfds_builders.read(folder, ("train",))
    with pytest.raises(InputError, match="not 23"):
        raw.verify_examples(found, {"train": unit.parts["train"]}, folder)


def test_tfrecord_needs_tensorflow(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    prepared = tmp_path.joinpath(*made.unit.builder)
    prepared.mkdir(parents=True)
    (prepared / "dataset_info.json").write_text(
        '{"fileFormat": "tfrecord", "splits": [{"name": "train"}, {"name": "test"}]}'
    )
    with pytest.raises(official.UnavailableError, match="tfrecord format, which needs"):
        get(made, tmp_path / "cache")


def test_a_download_that_is_not_the_official_file(made, serve, tmp_path, no_tfds):
    unit = serve(made)
    path = made.folder / unit.file_names()[-1]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(official.UnavailableError, match="checksum") as caught:
        get(made, tmp_path / "cache", units={unit.entry: (unit,)})
    assert "\n" not in str(caught.value)
    left = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert left == []


def test_a_download_without_a_checksum_is_refused(made, serve, tmp_path, no_tfds):
    unit = dataclasses.replace(serve(made), checksums={})
    with pytest.raises(official.UnavailableError, match="checksum"):
        get(made, tmp_path / "cache", units={unit.entry: (unit,)})


def test_extra_is_fetched_only_when_asked_for():
    assert official.UNITS["svhn_cropped"][0].urls().keys() == {"train", "test"}
    names = [u.file_names() for u in official.UNITS["svhn_cropped_extra"]]
    assert names == [["train_32x32.mat", "test_32x32.mat"], ["extra_32x32.mat"]]


def test_digests_and_urls_are_those_tfds_has_on_record():
    from jaxdl.data import tfds_builders

    for units in official.UNITS.values():
        for unit in units:
            source = tfds_builders.source(unit.builder[0], unit.urls())
            for split, urls in source.urls.items():
                for url, file in zip(urls, unit.parts[split], strict=True):
                    if url.endswith(".mat"):
                        assert source.checksums[url].checksum == file.sha256
                    else:
                        assert url in source.checksums


def test_absence_of_a_network_is_quick_and_named(made, tmp_path, offline):
    start = time.monotonic()
    with pytest.raises(official.UnavailableError, match="cannot be reached"):
        get(made, tmp_path / "cache")
    assert time.monotonic() - start < 2


def test_a_long_wait_is_not_repeated(mnist, tmp_path, no_tfds, monkeypatch):
    monkeypatch.setattr(network.unreachable, "__defaults__", (1.2,))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        home = f"http://127.0.0.1:{mute.getsockname()[1]}/"
        unit = dataclasses.replace(mnist.unit, home=home)

        def seconds(auto):
            start = time.monotonic()
            with pytest.raises(official.UnavailableError):
                get(mnist, tmp_path / "c", auto=auto, units={unit.entry: (unit,)})
            return time.monotonic() - start

        assert seconds(auto=True) > 1
        assert seconds(auto=True) < 0.5
        assert seconds(auto=False) > 1  # who asks by name is not put off
        (memory,) = (tmp_path / "c" / "data").glob("unreachable-*")
        os.utime(memory, (0, 0))
        assert seconds(auto=True) > 1


def test_what_one_host_did_is_not_held_against_another(made, tmp_path, monkeypatch):
    monkeypatch.setattr(official, "_REMEMBER_SECONDS", 1e6)
    (tmp_path / "data").mkdir()
    for host in ("slow.example", "good.example"):
        unit = dataclasses.replace(made.unit, home=f"http://{host}/")
        if host == "slow.example":
            (tmp_path / "data" / f"unreachable-{host}").write_text("no answer")
        monkeypatch.setattr(network, "unreachable", lambda url: f"asked for {url}")
        with pytest.raises(official.UnavailableError) as caught:
            get(made, tmp_path, auto=True, units={unit.entry: (unit,)})
        asked = f"asked for http://{host}/" in str(caught.value)
        assert asked == (host == "good.example")


def test_what_is_prepared_outlives_faults_that_are_not_its_own(
    made, serve, tmp_path, no_tfds, monkeypatch
):
    unit = serve(made)
    get(made, tmp_path / "cache", units={unit.entry: (unit,)})
    (tmp_path / "cache" / "data" / unit.entry / "meta.json").unlink()

    for error in (MemoryError("1.52 GiB"), OSError(24, "Too many open files")):
        failing = mock.Mock(side_effect=error)
        with monkeypatch.context() as patch:
            patch.setattr(official, "_read", failing)
            patch.setattr(network, "unreachable", lambda url: "offline")
            with pytest.raises((MemoryError, official.UnavailableError)):
                get(made, tmp_path / "cache", units={unit.entry: (unit,)})
    gone = dataclasses.replace(unit, home="http://nowhere.invalid/")
    assert same(get(made, tmp_path / "cache", units={unit.entry: (gone,)}), made)


def start(program, *arguments):
    code = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.Popen(
        [*code, *map(json.dumps, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_tensorflow_is_never_imported(svhn, serve, tmp_path):
    """From download to arrays, in a process of its own, which prints nothing."""
    unit = serve(svhn)
    checksums = {
        url: (int(info.size), info.checksum, info.filename)
        for url, info in unit.checksums.items()
    }
    program = """
        import json, pathlib, sys
        from jaxdl.data import tfds_builders
        from tensorflow_datasets.core.download.checksums import UrlInfo
        urls, checksums, folder = map(json.loads, sys.argv[1:])
        checksums = {url: UrlInfo(*info) for url, info in checksums.items()}
        source = tfds_builders.source("svhn_cropped", urls, checksums)
        folder = tfds_builders.prepare("svhn_cropped", source, pathlib.Path(folder))
        examples = tfds_builders.read(folder, ("train", "test"))
        assert len(examples["train"][1]) == 23
        sys.exit("tensorflow" in sys.modules)
    """
    process = start(program, unit.urls(), checksums, str(tmp_path / "tfds"))
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_two_processes_preparing_at_once(mnist, tmp_path):
    program = """
        import json, pathlib, sys
        from jaxdl.data import official, raw
        parts, folder, cache_dir = map(json.loads, sys.argv[1:])
        folder, cache_dir = pathlib.Path(folder), pathlib.Path(cache_dir)
        parts = {k: tuple(raw.RawFile(*f) for f in v) for k, v in parts.items()}
        unit = official.Unit("mnist", parts, "http://nowhere.invalid/", ("mnist", "3"))
        for _ in range(20):
            cache_dir.joinpath("data", "mnist", "meta.json").unlink(missing_ok=True)
            notices = []
            found = official.examples(
                "mnist", raw_dir=folder, cache_dir=cache_dir, auto=False,
                notices=notices, units={"mnist": (unit,)},
            )
            assert found["train"][0].shape == (37, 28, 28, 1) and not notices
    """
    arguments = mnist.unit.parts, str(mnist.folder), str(tmp_path / "c")
    started = [start(program, *arguments) for _ in range(2)]
    for process in started:
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
    assert same(get(mnist, tmp_path / "c", raw_dir=mnist.folder), mnist)
