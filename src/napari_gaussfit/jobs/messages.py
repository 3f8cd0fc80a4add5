"""Messages between napari and the process that fits: words and arrays over a byte stream.

Nothing is pickled. A message is a length, a JSON header and the arrays' bytes one after another.
Knows no fit.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, eq=False)
class Message:
    """A kind, JSON words and named arrays."""

    kind: str
    words: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def send(stream: IO[bytes], message: Message) -> None:
    """Write a message to an unbuffered or buffered stream, whole.

    Raises
    ------
    OSError
        If nobody reads any more.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    shapes = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    header = json.dumps([message.kind, message.words, shapes]).encode()
    _write(stream, memoryview(_LENGTH.pack(len(header)) + header))
    for array in arrays.values():
        if array.size:
            _write(stream, array.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Read the next message.

    Raises
    ------
    EOFError
        If the other side has closed, also amid a message.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    kind, words, shapes = json.loads(bytes(_read(stream, length)))
    arrays = {}
    for name, (dtype, shape) in shapes.items():
        array = np.empty(shape, np.dtype(dtype))
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(_read(stream, array.nbytes), np.uint8)
        arrays[name] = array
    return Message(kind, words, arrays)


def _write(stream: IO[bytes], data: memoryview) -> None:
    while data:
        written = stream.write(data)
        data = data[written:]


def _read(stream: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    view, filled = memoryview(data), 0
    while filled < count:
        piece = stream.read(min(count - filled, 1 << 24))
        if not piece:
            raise EOFError
        view[filled : filled + len(piece)] = piece
        filled += len(piece)
    return data
