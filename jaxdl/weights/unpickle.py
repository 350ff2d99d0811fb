"""The pickles of torch's weight files, read by a machine that cannot execute anything.

A pickle is a program for a stack machine, and Python's own machine calls whatever
function the program names. This one knows strings, numbers, tuples, lists, dictionaries
and tensors; a global is a name to it, never looked up, and all other names are refused.
Its instructions are those that `torch.save` has ever used for a state dict (pickle
protocol 2), Python 2 and torch 0.1 included; `pickletools` of the standard library
tells one from the next.
"""

import io
import pickletools
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxdl.errors import InputError

LIMIT = 1 << 20
"""Most bytes of a pickle. Each of them makes the machine hold at most some 100 bytes;
ResNet-152, with 932 arrays, needs 140 kB."""

DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""Number formats by the name that torch's storages of them have."""


class Storage(NamedTuple):
    """Numbers that lie elsewhere in the file."""

    key: str
    dtype: np.dtype
    size: int
    """Number of elements."""


class Tensor(NamedTuple):
    """A view of a storage; nothing of it is checked yet, but for the types."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements, as the offset."""


class _Global(NamedTuple):
    name: str


_MARK = object()
_RANK_LIMIT = 32
_INTEGER_KEY_LIMIT = 1 << 32
_STORAGES = {f"torch.{name}": dtype for name, dtype in DTYPES.items()}
_FUNCTIONS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor",  # of torch 0.1, and so is the last
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
}


def load(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The object of one pickle, and the storages that it speaks of.

    Args:
      stream: at the pickle's first byte; afterwards behind its last.

    Returns:
      The object, of str, number, None, tuple, list, dict and `Tensor`; and by key all
      storages, used by a tensor or not.

    Raises:
      InputError: the pickle is damaged, or names or does what no state dict does. The
        message is a clause that lacks its subject, the file.
    """
    try:
        return _run(stream)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # pickletools has no list of what it raises on damage
        line = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"is damaged: {line or type(error).__name__}") from error


def _run(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}
    argument: Any
    for op, argument, _ in pickletools.genops(stream):
        match op.name:
            case "PROTO":
                pass
            case "STOP":
                return _pop(stack), storages
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE"
            ) | ("SHORT_BINSTRING" | "BINSTRING"):  # the last two: str of Python 2
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(op.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                values = [_pop(stack) for _ in range(int(op.name[-1]))]
                stack.append(tuple(reversed(values)))
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(_pop_to_mark(stack)))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "SETITEM":
                value, key = _pop(stack), _pop(stack)
                _set_items(stack[-1], [(key, value)])
            case "SETITEMS":
                values = _pop_to_mark(stack)
                pairs = zip(values[::2], values[1::2], strict=True)
                _set_items(stack[-1], list(pairs))
            case "APPEND":
                value = _pop(stack)
                _extend(stack[-1], [value])
            case "APPENDS":
                values = _pop_to_mark(stack)
                _extend(stack[-1], values)
            case "GLOBAL":
                stack.append(_global(argument))
            case "REDUCE" | "NEWOBJ":
                arguments, function = _pop(stack), _pop(stack)
                stack.append(_call(function, arguments))
            case "BUILD":  # versions of layers, hooks: no value depends on them
                _pop(stack)
            case "BINPERSID":
                storage = _storage(_pop(stack))
                if storages.setdefault(storage.key, storage) != storage:
                    raise InputError(f"describes storage {storage.key!r} in two ways")
                stack.append(storage)
            case _:
                raise InputError(
                    f"holds the pickle instruction {op.name}, which no state dict "
                    "needs; nothing of the file was executed"
                )
    raise ValueError("its pickle has no end")


def _pop(stack: list[Any]) -> Any:
    value = stack.pop()
    if value is _MARK:
        raise ValueError("its pickle has a mark where a value should be")
    return value


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    values: list[Any] = []
    while (value := stack.pop()) is not _MARK:
        values.append(value)
    return values[::-1]


def _set_items(target: Any, pairs: list[Any]) -> None:
    if type(target) is not dict:
        raise InputError(f"sets items of a {type(target).__name__}")
    for key, value in pairs:
        # Nothing else, because nested tuples can take for ever to hash, and the large
        # integers that have the same hash for ever to compare.
        if type(key) not in (str, int):
            raise InputError(f"has a {type(key).__name__} for a key of a dictionary")
        if type(key) is int and not 0 <= key <= _INTEGER_KEY_LIMIT:
            raise InputError("has a number for a key that numbers no parameter")
        target[key] = value


def _extend(target: Any, values: list[Any]) -> None:
    if type(target) is not list:
        raise InputError(f"appends to a {type(target).__name__}")
    target.extend(values)


def _global(argument: str) -> _Global:
    name = argument.replace(" ", ".")  # pickletools puts a blank behind the module
    if name not in _FUNCTIONS and name not in _STORAGES:
        raise InputError(
            f"asks for {name!r}, which no state dict needs; nothing of the file was "
            "executed, and it may be malicious. Of a training checkpoint, save the "
            "network's state_dict() alone"
        )
    return _Global(name)


def _call(function: Any, arguments: Any) -> Any:
    match function, arguments:
        case _Global("collections.OrderedDict"), ():
            return {}
        case _Global("collections.OrderedDict"), (list() as pairs,):  # of Python 2
            made: dict[Any, Any] = {}
            _set_items(made, pairs)
            pairs.clear()  # or one list could fill any number of dictionaries
            return made
        case (
            _Global("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"),
            (Storage() as storage, int() as offset, tuple() as shape, strides, *rest),
        ) if (
            type(strides) is tuple
            # Not longer, because thousands of tensors can have the same one.
            and len(shape) == len(strides) <= _RANK_LIMIT
            and {*map(type, shape + strides)} <= {int}
            and rest[2:] in ([], [None], [{}])  # or the values are conjugated, negated
        ):
            return Tensor(storage, offset, shape, strides)
        case (
            _Global("torch._utils._rebuild_parameter" | "torch.nn.parameter.Parameter"),
            (Tensor() as tensor, *_),
        ):
            return tensor
        case _Global(name), _:
            raise InputError(f"calls {name!r} with arguments that it does not take")
    raise InputError("calls what is no function")


def _storage(identity: Any) -> Storage:
    match identity:
        case ("storage", _Global(name), str() as key, _, int() as size, *view) if (
            name in _STORAGES and view in ([], [None])
        ):
            return Storage(key, _STORAGES[name], size)
    raise InputError("refers to something other than a storage of numbers")
