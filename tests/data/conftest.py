"""Small raw files in the official formats, a server for them, and a dead network."""

import dataclasses
import functools
import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from jaxdl.data import official, raw


@dataclasses.dataclass
class Made:
    """A made-up set: its raw files, what they hold, and the unit that describes it."""

    folder: Path
    examples: dict[str, raw.Examples]
    unit: official.Unit

    @property
    def units(self):
        return {self.unit.entry: (self.unit,)}


def _examples(shape, count, seed):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    return images, generator.integers(0, 10, count).astype(np.int32)


@pytest.fixture
def mnist(tmp_path) -> Made:
    """37 training and 11 test images in four gzipped IDX files."""
    folder = tmp_path / "raw-mnist"
    folder.mkdir()
    examples, parts = {}, {}
    for seed, (split, count) in enumerate({"train": 37, "test": 11}.items()):
        images, labels = examples[split] = _examples((28, 28, 1), count, seed)
        files = []
        for file, array in zip(
            raw.MNIST[split],
            (images[..., 0], labels.astype(np.uint8)),
            strict=True,
        ):
            data = raw.to_idx(array)
            (folder / f"{file.name}.gz").write_bytes(gzip.compress(data, mtime=0))
            digest = hashlib.sha256(data).hexdigest()
            files.append(file._replace(size=count, sha256=digest))
        parts[split] = tuple(files)
    unit = official.Unit("mnist", parts, "http://nowhere.invalid/", ("mnist", "3.0.1"))
    return Made(folder, examples, unit)


@pytest.fixture
def svhn(tmp_path) -> Made:
    """23 training and 7 test images in two MATLAB files."""
    folder = tmp_path / "raw-svhn"
    folder.mkdir()
    examples, parts = {}, {}
    for seed, (split, count) in enumerate({"train": 23, "test": 7}.items()):
        images, labels = examples[split] = _examples((32, 32, 3), count, seed)
        (file,) = raw.SVHN[split]
        save_mat(folder / file.name, images, np.where(labels == 0, 10, labels))
        digest = hashlib.sha256((folder / file.name).read_bytes()).hexdigest()
        parts[split] = (file._replace(size=count, sha256=digest),)
    unit = official.Unit(
        "svhn_cropped", parts, "http://nowhere.invalid/", ("svhn_cropped", "3.1.0")
    )
    return Made(folder, examples, unit)


def save_mat(path, images, labels):
    """Writes a file as SVHN's: labels 1 to 10 as a column."""
    columns = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None].astype(np.uint8)}
    scipy.io.savemat(path, columns, do_compression=True)


@pytest.fixture(name="save_mat")
def save_mat_fixture():
    return save_mat


@pytest.fixture
def serve() -> Iterator:
    """serve(made): the same unit, downloaded from a server on this machine."""
    servers = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, address):
            pass  # the client hung up, as it may

    def start(made: Made) -> official.Unit:
        from tensorflow_datasets.core.download.checksums import UrlInfo

        handler = functools.partial(Handler, directory=str(made.folder))
        server = Server(("127.0.0.1", 0), handler)
        servers.append(server)
        serve = functools.partial(server.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}/"
        unit = dataclasses.replace(made.unit, home=home)
        checksums = {}
        for name in unit.file_names():
            data = (made.folder / name).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            checksums[home + name] = UrlInfo(len(data), digest, name)
        return dataclasses.replace(unit, checksums=checksums)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def no_tfds(monkeypatch, tmp_path):
    """What this machine's user has prepared with TFDS does not count."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "no-tfds"))


@pytest.fixture
def offline(monkeypatch, no_tfds):
    """Every connection is refused, and nothing is prepared on this machine."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
