"""Weight files made to do harm, each with what its refusal should say.

As a program (`python hostile.py FOLDER MEGABYTES`) it reads all files of a folder with
so much more memory than it has after start, and prints the refusals as JSON.
"""

import io
import json
import pickle
import struct
import sys
import warnings
import zipfile
from pathlib import Path

ZIP = {"data/0": bytes(16), "byteorder": b"little", "version": b"3\n"}
FUNCTION = b"ctorch._utils\n_rebuild_tensor_v2\n"
HOOKS = b"ccollections\nOrderedDict\n)R"
WHOLE = {"memo", "deep", "wide", "wider", "mentions", "itself"}
WHOLE |= {"quadratic", "attribute"}
"""Names of pickles that a stream is not tried with: its refusal is another."""


def number(value):
    digits = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(digits)]) + digits


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(size=4, kind=b"FloatStorage", key=b"0"):
    key = b"X" + struct.pack("<I", len(key)) + key
    key += b"U\x03cpu" + number(size)
    return b"(U\x07storagectorch\n" + kind + b"\n" + key + b"tQ"


def tensor(shape=(4,), strides=(1,), offset=0, of=None, end=b""):
    parts = (of or storage()) + number(offset) + numbers(shape) + numbers(strides)
    return FUNCTION + b"(" + parts + b"\x89" + HOOKS + end + b"tR"


def state(*values):
    """The pickle of a dictionary with these values."""
    items = (b"U\x04" + f"w{i:03d}".encode() + value for i, value in enumerate(values))
    return b"\x80\x02}(" + b"".join(items) + b"u."


def archive(described, members=ZIP, compression=zipfile.ZIP_STORED, root="archive/"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicates
        pairs = members.items() if isinstance(members, dict) else members
        for name, data in (("data.pkl", described), *pairs):
            target.writestr(f"{root}{name}", data)
    return file.getvalue()


def stream(described, tail, keys=b"]U\x010a"):
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    return head + pickle.dumps({}, 2) + described + b"\x80\x02" + keys + b"." + tail


def patched(data, changes, directory=True):
    """With 2- or 4-byte fields changed in the last member's entry of the directory."""
    where = data.rindex(b"PK\x01\x02") if directory else data.rindex(b"PK\x05\x06")
    changed = bytearray(data)
    for offset, (layout, value) in changes.items():
        struct.pack_into(layout, changed, where + offset, value)
    return bytes(changed)


def pickles():
    """(name, pickle, refusal): programs for Python's own machine."""
    touch = b"U\x0etouch executed"
    yield "system", b"\x80\x02cos\nsystem\n" + touch + b"\x85R.", r"'os\.system'"
    yield "eval", b"\x80\x02c__builtin__\neval\nU\x011\x85R.", r"'__builtin__\.eval'"
    yield "inst", b"\x80\x02(" + touch + b"ios\nsystem\n.", "INST"
    yield "obj", b"\x80\x02(cos\nsystem\n" + touch + b"o.", r"'os\.system'"
    yield "stack", b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "SHORT_BINUNICODE"
    yield "extension", b"\x80\x02\x82\x01.", "EXT1"
    yield "reduce", b"\x80\x02U\x01x)R.", "no function"
    yield "module", b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", "linear.Linear"
    yield "arguments", b"\x80\x02" + FUNCTION + b")R.", "does not take"
    yield "attribute", b"\x80\x02" + FUNCTION + b"N}U\x01aK\x01s\x86b.", "not a state d"
    yield "elsewhere", b"\x80\x02(U\x06moduleNNNtQ.", "other than a storage"
    yield "tuple_key", b"\x80\x02})" + b"2\x86" * 2 + b"K\x01s.", "DUP"
    bomb = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(1, 60))
    yield "hash_bomb", b"\x80\x02}" + bomb + b"K\x01s.", "a tuple for a key"
    alike = b"".join(
        pickle.dumps(i * (2**61 - 1), 2)[2:-1] + b"N" for i in range(70000)
    )
    yield "hash_alike", b"\x80\x02}(" + alike + b"u.", "numbers no parameter"
    many = b"(" + b"".join(b"M%sK\x00\x86" % struct.pack("<H", i) for i in range(20000))
    pairs = b"]" + many + b"eq\x01\x85q\x03R"
    repeat = b"ccollections\nOrderedDict\nq\x02" + pairs + b"h\x02h\x03R" * 20000
    yield "quadratic", b"\x80\x02(" + repeat + b"l.", "LIST"
    items = b"".join(b"U\x05%05dN" % i for i in range(10000))
    once = b"U\x01x}q\x01(" + items + b"u"
    mentions = b"".join(b"U\x05%05dh\x01" % i for i in range(10000))
    yield "mentions", b"\x80\x02}(" + once + mentions + b"u.", "holds dict 'x' beside"
    itself = b"\x80\x02}q\x01U\x04selfh\x01s."
    yield "itself", itself, "holds dict 'self' beside"
    yield "memo", b"\x80\x02}r\xff\xff\xff\xff.", "^0 arrays"
    yield "string", b"\x80\x02X\xff\xff\xff\xff.", "damaged"
    yield "bytes", b"\x80\x02\x8e" + b"\xff" * 7 + b"\x7f.", "damaged"
    yield "digits", b"\x80\x02I" + b"9" * 1000000 + b"\n.", "damaged"
    yield "deep", b"\x80\x02" + b"]" * 100000 + b"a" * 99999 + b".", "not a state dict"
    yield "wide", b"\x80\x02" + b"}" * 1040000 + b".", "^0 arrays"
    yield "wider", b"\x80\x02" + b"}" * 2000000 + b".", "damaged|are allowed"
    yield "mark", b"\x80\x02(.", "mark"
    yield "empty", b"\x80\x02.", "damaged"
    yield "endless", b"\x80\x02}", "damaged"
    shape = b"(" + b"K\x01" * 200000 + b"tq\x01"
    yield (
        "rank",
        b"\x80\x02"
        + FUNCTION
        + b"("
        + storage()
        + b"K\x00"
        + shape
        + (b"h\x01\x89" + HOOKS + b"tR."),
        "does not take",
    )


def tensors():
    """(name, pickle, refusal): views of a storage of four float32 zeros."""
    yield "negative_stride", state(tensor(strides=(-1,), offset=3)), "not lie within"
    yield "negative_size", state(tensor(shape=(-4,))), "not lie within"
    yield "negative_offset", state(tensor(offset=-1)), "not lie within"
    yield "too_long", state(tensor(shape=(5,), strides=(1,))), "more than it holds"
    yield "too_far", state(tensor(offset=1)), "not lie within"
    yield "far_stride", state(tensor(shape=(2,), strides=(4,))), "not lie within"
    yield (
        "expanded",
        state(tensor(shape=(1 << 40,), strides=(0,))),
        "more than it holds",
    )
    yield "product", state(tensor((1 << 32, 1 << 32), (0, 0))), "more than it holds"
    yield "absurd", state(tensor((1 << 500,), (1 << 500,))), "more than it holds"
    yield "absurd_stride", state(tensor((2,), (1 << 500,))), "not lie within"
    yield "absurd_empty", state(tensor((0, 1 << 500), (1, 1))), "shape"
    yield "ranks", state(tensor((2, 2), (1,))), "does not take"
    yield "deep_rank", state(tensor((1,) * 33, (1,) * 33)), "does not take"
    yield "overlap", state(tensor(), tensor()), "32 bytes in all"
    half = tensor().replace(b"(" + number(1) + b"t", b"(G" + bytes(8) + b"t")
    yield "float_stride", state(half), "does not take"
    yield "negated", state(tensor(end=b"}U\x03neg\x88s")), "does not take"
    yield "elsewhere", state(tensor(of=storage(key=b"1"))), "lacks storage '1'"
    yield "traversal", state(tensor(of=storage(key=b"../version"))), "lacks storage"
    yield "short_storage", state(tensor(of=storage(size=5))), "16 bytes, not 5"
    yield "huge_storage", state(tensor(of=storage(size=1 << 60))), "16 bytes, not"
    yield "wide_type", state(tensor(of=storage(kind=b"DoubleStorage"))), "16 bytes, not"
    yield (
        "unknown_type",
        state(tensor(of=storage(kind=b"QInt8Storage"))),
        "QInt8Storage",
    )
    two = (tensor((2,)), tensor((2,), of=storage(size=2, kind=b"DoubleStorage")))
    yield "two_types", state(*two), "in two ways"


def archives():
    """(name, file, refusal): zip archives that lie."""
    good = state(tensor())
    whole = archive(good)
    yield "deflated", archive(good, compression=zipfile.ZIP_DEFLATED), "compressed"
    bomb = {**ZIP, "data/0": bytes(64 << 20)}
    yield "bomb", archive(good, bomb, zipfile.ZIP_DEFLATED), "compressed"
    yield "twice", archive(good, [*ZIP.items(), ("data/0", bytes(16))]), "twice"
    yield "no_pickle", archive(good, root="a/b/"), "0 data.pkl"
    yield "script", archive(good, {**ZIP, "constants.pkl": b""}), "TorchScript"
    yield "order", archive(good, {**ZIP, "byteorder": b"middle"}), "byte order"
    yield "crc", whole.replace(bytes(16), bytes(15) + b"\1"), "checksum"
    two = io.BytesIO()
    with zipfile.ZipFile(two, "w") as target:
        for root in "ab":
            target.writestr(f"{root}/data.pkl", good)
    yield "two_pickles", two.getvalue(), "2 data.pkl"
    yield "size", patched(whole, {20: ("<I", 99), 24: ("<I", 99)}), "ends where"
    yield "sizes", patched(whole, {24: ("<I", 1 << 31)}), "ends where"
    yield "offset", patched(whole, {42: ("<I", 1 << 31)}), "begin where"
    yield "same", patched(whole, {42: ("<I", 0)}), "begin where"
    yield "encrypted", patched(whole, {8: ("<H", 1)}), "encrypted"
    size, start = struct.unpack_from("<II", whole, whole.rindex(b"PK\5\6") + 12)
    entry = whole[start : start + size]
    crowd = whole[:start] + entry * 60000 + whole[start + size :]
    size *= 60000
    yield "crowd", patched(crowd, {12: ("<I", size)}, directory=False), "a directory of"
    yield "nothing", b"PK\5\6" + bytes(18), "not a file of torch.save"


def streams():
    """(name, file, refusal): files of before torch 1.6."""
    good, count = state(tensor()), struct.Struct("<q").pack
    yield "negative", stream(good, count(-1) + bytes(16)), "-1 elements"
    yield "longer", stream(good, count(5) + bytes(16)), "5 elements would"
    yield "absurd", stream(good, count(1 << 62) + bytes(16)), "elements would"
    yield "shorter", stream(good, count(3) + bytes(16)), "12 bytes, not 4"
    twice = b"](U\x010U\x010e"
    yield "twice", stream(good, 2 * (count(4) + bytes(16)), twice), "twice"
    yield "unknown", stream(good, count(4) + bytes(16), b"]U\x011a"), "unknown"
    yield "unlisted", stream(good, count(4) + bytes(16), b"]"), "lacks storage '0'"
    yield "no_list", stream(good, count(4) + bytes(16), b"K\x01"), "no list"
    yield "version", stream(good, b"").replace(b"M\xe9\x03", b"M\xea\x03", 1), "version"
    yield "pickled", pickle.dumps({"a": 1}), "not a file of torch.save"
    yield "system", stream(b"\x80\x02cos\nsystem\nU\x01x\x85R.", b""), r"'os\.system'"


def safetensors(header, data=bytes(16)):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype="F32", shape=(4,), begin=0, end=16):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def safe_files():
    """(name, file, refusal): safetensors."""
    a = json.dumps(entry()).encode()
    yield "header", struct.pack("<Q", 1 << 60) + b"{}", "header"
    yield "long_header", safetensors(b"{" + b" " * (2 << 20) + b"}"), "header of"
    yield "beyond", struct.pack("<Q", 1 << 10) + b"{}", "damaged"
    yield "no_json", safetensors(b"{not json"), "damaged"
    yield "utf8", safetensors(b'{"\xff": 1}'), "damaged"
    yield "overlap", safetensors({"a": entry(), "b": entry()}), "damaged"
    half = {"a": entry(), "b": entry(shape=(4,), begin=8, end=24)}
    yield "half_overlap", safetensors(half, bytes(24)), "damaged"
    gap = {"a": entry(), "b": entry(begin=20, end=36)}
    yield "gap", safetensors(gap, bytes(36)), "damaged"
    yield "trailing", safetensors({"a": entry()}, bytes(17)), "damaged"
    yield "short", safetensors({"a": entry()}, bytes(15)), "damaged"
    yield "out", safetensors({"a": entry(begin=1 << 40, end=(1 << 40) + 16)}), "damaged"
    yield "reversed", safetensors({"a": entry(begin=16, end=0)}), "damaged"
    yield "negative", safetensors({"a": entry(begin=-16, end=0)}), "damaged"
    yield "shape", safetensors({"a": entry(shape=(5,))}), "damaged"
    yield "product", safetensors({"a": entry(shape=(1 << 40, 1 << 40))}), "damaged"
    yield "negative_shape", safetensors({"a": entry(shape=(-4,))}), "damaged"
    yield "dtype", safetensors({"a": entry(dtype="object")}), "damaged"
    for power in (62, 63):
        void = safetensors({"a": entry(shape=(0, 1 << power), end=0)}, b"")
        yield f"void{power}", void, "'a' in a shape that NumPy cannot hold: "
    high = entry(shape=(1,) * 70, end=4)
    yield "rank", safetensors({"a": high}, bytes(4)), "'a' in a shape .* 64, found 70"
    for name, bits in {"F8_E4M3": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F4": 4}.items():
        numbers = safetensors({"a": entry(name, (8,), end=bits)}, bytes(bits))
        yield name, numbers, f"'a' in the number format {name}; BOOL, .* are allowed"
    yield (
        "twice",
        safetensors(b'{"a": ' + a + b', "a": ' + a + b"}"),
        "names an array twice",
    )
    crowd = {f"{i:06d}": entry(shape=(0,), end=0) for i in range(10000)}
    yield "crowd", safetensors(crowd, b""), "^10000 arrays"


def files():
    """(name, content, refusal) of all."""
    for name, described, refusal in (*pickles(), *tensors()):
        yield f"zip-{name}", archive(described), refusal
    for name, described, refusal in pickles():
        if name not in WHOLE:
            yield f"stream-{name}", stream(described, b""), refusal
    for group in (archives, streams, safe_files):
        for name, content, refusal in group():
            yield f"{group.__name__}-{name}", content, refusal


def main(folder, megabytes):
    import resource

    from jaxdl import weights
    from jaxdl.errors import InputError

    weights.read(folder / "good")  # all that is imported late

    def size():
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return pages * resource.getpagesize()

    limit = size() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    refusals = {}
    try:
        bytearray(limit - size() + (1 << 20))  # a MiB more than there is now
    except MemoryError:
        refusals["too much"] = "MemoryError"
    for path in sorted(folder.iterdir()):
        try:
            found = weights.read(path)
            refusals[path.name] = f"{len(found)} arrays"
        except InputError as error:
            refusals[path.name] = str(error)
        except BaseException as error:
            refusals[path.name] = f"NOT REFUSED PROPERLY: {error!r}"
    print(json.dumps(refusals))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
