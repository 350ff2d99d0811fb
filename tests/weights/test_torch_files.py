"""Files of torch.save, both ways, with torch itself as the reference."""

import collections
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxdl import weights
from jaxdl.errors import InputError

DTYPES = ("float64", "float32", "float16", "bfloat16")
DTYPES += ("int64", "int32", "int16", "int8", "uint8", "bool")


def bits(array):
    """Shape, type and bytes, with which NaN equals itself."""
    return array.shape, str(array.dtype), np.ascontiguousarray(array).tobytes()


def bits_of_torch(tensor):
    torch = reference.torch()
    tensor = tensor.detach().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.numel() == 0:
        return tuple(tensor.shape), name, b""
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return tuple(tensor.shape), name, raw


def tensors():
    torch = reference.torch()
    base = torch.randn(10)
    found = {name: (5 * torch.randn(3, 4)).to(getattr(torch, name)) for name in DTYPES}
    return collections.OrderedDict(
        found,
        scalar=torch.tensor(3.0),
        empty=torch.zeros(0, 5),
        channels_last=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        transposed=torch.randn(4, 5).T,
        parameter=torch.nn.Parameter(torch.randn(3)),
        half_of_a_storage=base[2:5],
        the_other_half=base[5:],
        repeated=torch.ones(2, 1)[:, :1].expand(2, 1),
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read(tmp_path, zipped):
    torch, path = reference.torch(), tmp_path / "weights.pth"
    state = tensors()
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = weights.read(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        assert bits(found[name]) == bits_of_torch(tensor), name
        assert not found[name].flags.writeable or not tensor.numel()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_the_state_dict_in_a_checkpoint(tmp_path, zipped, key):
    """With all else that a training script leaves there, an optimiser's state too."""
    torch, path = reference.torch(), tmp_path / "checkpoint.pth"
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    saved = {key: net.state_dict(), "epoch": 3, "optimiser": optimiser.state_dict()}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    found = weights.read(path)
    assert list(found) == ["weight", "bias"]
    assert bits(found["weight"]) == bits_of_torch(net.weight)


def test_a_file_without_checksums(tmp_path):
    torch, path = reference.torch(), tmp_path / "weights.pth"
    options = torch.serialization
    options.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(5)}, path)
    finally:
        options.set_crc32_options(True)
    assert weights.read(path)["a"].tolist() == [0, 1, 2, 3, 4]


def test_a_file_from_a_big_endian_machine(tmp_path):
    torch, path = reference.torch(), tmp_path / "weights.pth"
    state = {"a": np.arange(3, dtype=np.float32), "b": np.array([1, 2.5, -3], "f8")}
    state["c"] = np.array([1.5, -2], ml_dtypes.bfloat16)
    weights.write(tmp_path / "little.pth", state)
    with (
        zipfile.ZipFile(tmp_path / "little.pth") as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            elif "/data/" in name:
                width = list(state.values())[int(name[-1])].itemsize
                data = np.frombuffer(data, f"u{width}").byteswap().tobytes()
            target.writestr(name, data)
    found, theirs = weights.read(path), torch.load(path, weights_only=True)
    for name, array in state.items():
        assert bits(found[name]) == bits(array) == bits_of_torch(theirs[name])


def old_pickle(write_tensor):
    """A legacy file with one tensor "w", [[1, 2], [3, 4]], as torch 0.1 wrote it.

    Its strings are those of Python 2.
    """
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x0812345678U\x03cpuK\x04NtQ"
    state = write_tensor(storage)
    raw = np.array([1, 2, 3, 4], "<f4").tobytes()
    keys = b"\x80\x02]U\x0812345678a."
    info = pickle.dumps({"protocol_version": 1001, "little_endian": True}, 2)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + info
    return head + b"\x80\x02" + state + b"." + keys + struct.pack("<q", 4) + raw


def test_parameters_as_torch_0_1_and_python_2_wrote_them(tmp_path):
    """The oldest of torchvision's files; torch reads the same bytes alike."""
    torch, path = reference.torch(), tmp_path / "weights.pth"

    def write(storage):
        hooks = b"ccollections\nOrderedDict\n]\x85R"
        tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage
        tensor += b"K\x00K\x02K\x02\x86K\x02K\x01\x86tR"
        value = b"ctorch.nn.parameter\nParameter\n" + tensor + b"\x85R"
        value += b"(\x88\x89" + hooks + b"tb"  # requires_grad, volatile, hooks
        pair = b"]U\x01wa" + value + b"a"
        return b"ccollections\nOrderedDict\n](" + pair + b"e\x85R"

    path.write_bytes(old_pickle(write))
    assert weights.read(path)["w"].tolist() == [[1, 2], [3, 4]]
    theirs = torch.load(path, weights_only=False)  # these bytes are our own
    assert theirs["w"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_round_trip(tmp_path_factory, suffix, data):
    """Any names, shapes and bits; torch-free."""
    dtypes = st.sampled_from([np.dtype(getattr(np, n, "f4")) for n in DTYPES[:3]])
    dtypes |= st.sampled_from([np.dtype("i8"), np.dtype("u1"), np.dtype(bool)])
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
    names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=9)
    names = names.filter(lambda name: name != "__metadata__")
    arrays = hnp.arrays(dtypes, shapes)
    arrays |= arrays.map(np.transpose)
    state = data.draw(st.dictionaries(names, arrays, max_size=5))
    path = tmp_path_factory.mktemp("trip") / f"weights{suffix}"
    weights.write(path, state)
    found = weights.read(path)
    assert {k: bits(v) for k, v in found.items()} == {
        k: bits(v) for k, v in state.items()
    }


def test_torch_reads_what_is_written(tmp_path):
    torch, path = reference.torch(), tmp_path / "ours.pth"
    torch.save(tensors(), tmp_path / "theirs.pth")
    state = weights.read(tmp_path / "theirs.pth")
    weights.write(path, state)
    found = torch.load(path, weights_only=True)
    assert list(found) == list(state)
    for name, array in state.items():
        assert bits_of_torch(found[name]) == bits(array)
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert mapped["float64"].data_ptr() % 64 == 0
    weights.write(tmp_path / "ours.safetensors", state)
    from safetensors.torch import load_file

    found = load_file(tmp_path / "ours.safetensors")
    assert {k: bits_of_torch(v) for k, v in found.items()} == {
        k: bits(v) for k, v in state.items()
    }


@pytest.mark.parametrize("suffix", weights.SUFFIXES)
def test_others_may_read_what_is_written_as_the_umask_says(tmp_path, suffix):
    (tmp_path / "plain").touch()
    weights.write(tmp_path / f"w{suffix}", {"a": np.zeros(2)})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_equal_weights_are_equal_files_and_aligned(tmp_path):
    state = {"a": np.arange(3.0), "b" * 50: np.arange(7, dtype=np.int8)}
    for name in ("1.pth", "2.pth"):
        weights.write(tmp_path / name, state)
    assert (tmp_path / "1.pth").read_bytes() == (tmp_path / "2.pth").read_bytes()
    for array in weights.read(tmp_path / "1.pth").values():
        assert array.ctypes.data % 64 == 0
    with zipfile.ZipFile(tmp_path / "1.pth") as archive:
        assert archive.testzip() is None


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        weights.write(tmp_path / "weights.npz", {})
    with pytest.raises(InputError, match=r"a\.b is complex64"):
        weights.write(tmp_path / "a.pth", {"a.b": np.zeros(2, np.complex64)})
    for suffix in weights.SUFFIXES:
        with pytest.raises(InputError, match=f"cannot write .*a{suffix}"):
            weights.write(tmp_path / "nowhere" / f"a{suffix}", {"a": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


def test_memory_and_disk_are_the_size_of_the_weights(tmp_path):
    """The file is mapped: what is not read takes no memory."""
    import tracemalloc

    path = tmp_path / "weights.pth"
    weights.write(path, {str(i): np.zeros(1 << 20, np.float32) for i in range(16)})
    tracemalloc.start()
    found = weights.read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 16 and peak < 1 << 20
