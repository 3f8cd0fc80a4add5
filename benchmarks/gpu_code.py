"""CUDA kernels without a GPU: compiled to PTX, and that PTX run, each instruction counted.

A block's threads are the lanes of NumPy arrays, and an instruction is one operation on them, of
those lanes that come to it: after a branch they go separate ways and meet where all ways meet again
(the branch's immediate post-dominator), as a GPU's do. So it is known which instructions a warp
really executes, of what was compiled and on the data at hand, and what is computed can be held
against the reference by an engine that shares nothing with numba's simulator.

Rounding is NumPy's; `ex2.approx` and its like are exact here.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import numba.cuda.dispatcher
import numpy as np
import torch
from numba import types
from numba.cuda.codegen import CUDACodeLibrary
from numba.cuda.dispatcher import _Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Lanes = NDArray[Any]
    Operand = Callable[["Block"], Lanes]
    Step = Callable[["Block", NDArray[np.bool_]], None]
    Places = Callable[["Block", NDArray[np.bool_]], tuple[Lanes, Lanes]]

ELEMENTS = {
    torch.float32: types.float32,
    torch.float64: types.float64,
    torch.int32: types.int32,
    torch.int16: types.int16,
    torch.int64: types.int64,
    torch.uint8: types.uint8,
}
WARP = 32
SHARED = 1 << 40
"""Where shared memory begins among generic addresses: beyond all of global memory."""
ALIGNED = 256


class Device:
    """Stands for the GPU that is not there."""

    def __init__(self, compute_capability: tuple[int, int]) -> None:
        self.compute_capability = compute_capability


def pretend(capability: str) -> None:
    """Let numba compile for a GPU that is not there, in the rest of this process."""
    numba.cuda.dispatcher.get_current_device = lambda: Device(as_pair(capability))


def as_pair(capability: str) -> tuple[int, int]:
    """Read "9.0"."""
    major, minor = capability.split(".")
    return int(major), int(minor)


def numba_type(argument: object) -> Any:
    """The type that numba gives an argument of a launch."""
    if isinstance(argument, tuple):
        return types.containers.BaseTuple.from_types([numba_type(one) for one in argument], tuple)
    if isinstance(argument, torch.Tensor):
        assert argument.is_contiguous()
        return types.Array(ELEMENTS[argument.dtype], argument.ndim, "C")
    if isinstance(argument, np.int32):
        return types.int32
    assert isinstance(argument, np.float32), f"{type(argument)} would be 64 bits wide"
    return types.float32


def library_of(kernel: Any, signature: tuple[Any, ...]) -> CUDACodeLibrary:
    """Return a kernel as numba compiles it for a launch, with its options, where no GPU is."""
    # Numba looks there for functions of its own, which kernels have none of.
    with patch.object(CUDACodeLibrary, "get_asm_str", lambda _library: ""):
        built = _Kernel(kernel.py_func, signature, **kernel.targetoptions)
    return built._codelibrary  # noqa: SLF001


def ptx_of(library: CUDACodeLibrary, capability: str) -> str:
    """Return the PTX of what numba compiled; its own part is done once for all capabilities."""
    return "".join(library.get_asm_strs(as_pair(capability)))


class Resources(NamedTuple):
    """What a block of a linked kernel takes of a multiprocessor.

    Parameters
    ----------
    registers : int
        Of 32 bits, of a thread.
    shared : int
        Bytes of shared memory, with the kilobyte that newer GPUs keep of it for themselves.
    stack : int
        Bytes of a thread's own memory: what it has no registers for.
    """

    registers: int
    shared: int
    stack: int

    def blocks(self, threads: int) -> int:
        """Return how many blocks of so many threads a multiprocessor of an H100 runs at a time."""
        warps = -(-threads // WARP)
        # Registers are given to warps by 256, and a quarter of them to each of four schedulers.
        of_warp = -(-self.registers * WARP // 256) * 256
        by_registers = 4 * (16384 // of_warp) // warps
        by_shared = 228 * 1024 // max(1, self.shared)
        return min(32, 64 // warps, by_registers, by_shared)


def resources_of(library: CUDACodeLibrary, capability: str) -> Resources:
    """Return what a kernel takes as numba links it for a launch.

    Raises
    ------
    cuda.bindings.nvjitlink.nvJitLinkError
        If it cannot be linked: it may have too much shared memory.
    """
    code = library.get_cubin(as_pair(capability)).code
    sections = _sections_of(code)
    shared = sum(size for name, (_, size) in sections.items() if name.startswith(".nv.shared."))
    return Resources(
        _attribute(code, sections, REGISTERS_USED), shared, _attribute(code, sections, STACK_USED)
    )


REGISTERS_USED, STACK_USED = 0x2F, 0x11
"""EIATTR_REGCOUNT and EIATTR_FRAME_SIZE, as tools for NVIDIA's machine code name them."""


def _sections_of(code: bytes) -> dict[str, tuple[int, int]]:
    """Return where each section of an ELF file begins, and its bytes."""
    (table,) = struct.unpack_from("<Q", code, 0x28)
    width, number, names = struct.unpack_from("<3H", code, 0x3A)
    headers = [struct.unpack_from("<2I4Q", code, table + n * width) for n in range(number)]
    begin = headers[names][4]
    found = {}
    for name, _, _, _, offset, size in headers:
        text = code[begin + name : code.index(b"\0", begin + name)].decode()
        found[text] = (offset, size)
    return found


def _attribute(code: bytes, sections: dict[str, tuple[int, int]], wanted: int) -> int:
    """Return the largest value of an attribute that a linked kernel's functions have."""
    at, size = sections[".nv.info"]
    end, found = at + size, 0
    while at < end:
        kind, attribute, length = struct.unpack_from("<2BH", code, at)
        at += 4
        if kind != 4:  # The value is where the length of others is.
            continue
        if attribute == wanted:
            found = max(found, struct.unpack_from("<2I", code, at)[1])
        at += length
    return found


TYPES = {
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "ub" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}") for bits in (32, 64)},
    "pred": np.dtype(bool),
}
REGISTERS = {"p": "pred", "rs": "u16", "r": "u32", "rd": "u64", "f": "f32", "fd": "f64"}
"""Types in which registers are kept, by how their names begin."""
COMPARISONS: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
}
ORDERED = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}
"""What is false where a comparison is true that numbers which are none fulfil."""


def _quotient(a: Lanes, b: Lanes) -> Lanes:
    if a.dtype.kind != "i":
        return a // b if a.dtype.kind == "u" else a / b
    return (np.abs(a) // np.abs(b)) * (np.sign(a) * np.sign(b))


def _high(a: Lanes, b: Lanes) -> Lanes:
    bits = 8 * a.dtype.itemsize
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    return np.array([int(x) * int(y) >> bits for x, y in pairs], a.dtype)


def _shifted(a: Lanes, by: Lanes, *, left: bool) -> Lanes:
    most = 8 * a.dtype.itemsize - 1
    by = by.astype(np.uint64)
    beyond = by > most
    by = np.minimum(by, most).astype(a.dtype)
    if left:
        return np.where(beyond, 0, a << by).astype(a.dtype)
    rest = a >> by
    return rest if a.dtype.kind == "i" else np.where(beyond, 0, rest).astype(a.dtype)


def _reversed(a: Lanes) -> Lanes:
    return np.array([int(f"{x:032b}"[::-1], 2) for x in a.tolist()], a.dtype)


def _leading(a: Lanes) -> Lanes:
    found = [WARP - x.bit_length() if x else 2**32 - 1 for x in a.tolist()]
    return np.array(found, np.uint32)


OPERATIONS: dict[str, Callable[..., Lanes]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.hi": _high,
    "mad": lambda a, b, c: a * b + c,
    "fma": lambda a, b, c: a * b + c,
    "div": _quotient,
    "rem": lambda a, b: a - _quotient(a, b) * b,
    "min": np.fmin,
    "max": np.fmax,
    "abs": np.abs,
    "neg": np.negative,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shl": lambda a, by: _shifted(a, by, left=True),
    "shr": lambda a, by: _shifted(a, by, left=False),
    "copysign": lambda sign, of: np.copysign(of, sign),
    "ex2": np.exp2,
    "lg2": np.log2,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "rcp": lambda a: 1 / a,
    "brev": _reversed,
    "bfind": _leading,
}
ROUNDED = {"rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil, "rni": np.rint}

SPECIAL = {"ex2", "lg2", "sqrt", "rsqrt", "rcp", "sin", "cos"}
FREE = {"mov", "cvta"}
"""What is no machine instruction, or seldom one: the assembler renames registers instead."""
WIDE = 2.0
"""Machine instructions of one on whole numbers of 64 bits: of each half one."""
LONG = {"mul": 4.0, "mad": 4.0, "div": 70.0, "rem": 70.0}
"""Of those of 64 bits that take more: products of halves, and a loop's worth for a quotient."""
SHORT = {"div.s32": 20.0, "div.u32": 20.0, "rem.s32": 20.0, "rem.u32": 20.0}
SHORT |= {"div.f32": 8.0, "rcp.f32": 8.0, "sqrt.f32": 8.0}
"""Of quotients and roots of 32 bits: an approximate one and what makes it whole or exact."""
APPROXIMATE = {"div": 4.0}
"""Of those that may stay approximate, and are more than one: a reciprocal, scaled before."""


def unit_of(first: str, rest: Sequence[str]) -> str:
    """Return which unit does a PTX instruction, of which `rest` are the parts after its name."""
    last = rest[-1] if rest else ""
    if first in {"ld", "st"}:
        return "shared" if "shared" in rest else "global"
    if first in {"bra", "ret", "bar"}:
        return "control"
    if last == "f64" or (first == "cvt" and "f64" in rest):
        return "double"
    if first in SPECIAL or (first == "cvt" and "f32" in rest):
        return "special"
    return "single" if last == "f32" else "integer"


def instructions_of(first: str, rest: Sequence[str]) -> float:
    """Return about how many of a machine's instructions a PTX instruction is."""
    last = rest[-1] if rest else ""
    if first in FREE or "param" in rest:
        return 0.0
    if last == "f64":
        return 10.0 if first in {"div", "sqrt"} else 1.0
    if last.endswith("64") and first not in {"ld", "st", "cvt"} and "wide" not in rest:
        return LONG.get(first, WIDE)
    if "approx" in rest:
        return APPROXIMATE.get(first, 1.0)
    return SHORT.get(f"{first}.{last}", 1.0)


@dataclass
class Part:
    """Instructions without a branch among them, and where they lead.

    Parameters
    ----------
    steps : list of callable
        What each instruction does.
    cost : Counter
        Machine instructions by unit, about.
    condition : callable or None
        Of a branch that is not always taken: which lanes take it.
    target, after : int
        Part that a branch leads to, and the one that comes next otherwise; -1 is the end.
    """

    steps: list[Step] = field(default_factory=list)
    cost: Counter[str] = field(default_factory=Counter)
    condition: Operand | None = None
    target: int = -1
    after: int = -1


class Program:
    """A kernel's PTX, ready to run.

    Parameters
    ----------
    text : str
        PTX of one kernel.
    """

    def __init__(self, text: str) -> None:
        head, body = text.split(".visible .entry", 1)
        self.parameters = re.findall(r"\.param \.\w+ (\w+)", body)
        self.shared: dict[str, int] = {}
        self.shared_size = 0
        for align, name, size in re.findall(
            r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", head + body
        ):
            begin = -(-self.shared_size // int(align)) * int(align)
            self.shared[name], self.shared_size = begin, begin + int(size)
        self.parts: list[Part] = []
        self._read(_with_own_names(body[body.index("{") + 1 :]))
        self.meets = _post_dominators(self.parts)

    def _read(self, body: str) -> None:
        labels: dict[str, int] = {}
        waiting: list[tuple[Part, str]] = []
        ended = True
        for line in (raw.strip() for raw in body.splitlines()):
            label = re.match(r"(\$L\w+):", line)
            if label or ended:
                self.parts.append(Part())
                if len(self.parts) > 1 and not ended:
                    self.parts[-2].after = len(self.parts) - 1
                ended = False
            if label:
                labels[label[1]] = len(self.parts) - 1
            found = re.match(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*);", line)
            if not found:
                continue
            negated, predicate, operation, rest = found.groups()
            part, number = self.parts[-1], len(self.parts)
            first, *suffixes = operation.split(".")
            # A Counter adds up fractions too.
            part.cost[unit_of(first, suffixes)] += instructions_of(  # type: ignore[assignment]
                first, suffixes
            )
            if operation.startswith("bra"):
                ended = True
                waiting.append((part, rest.strip()))
                if predicate:
                    part.condition, part.after = _condition(predicate, negated), number
            elif operation == "ret":
                ended = True
            else:
                assert not predicate, line
                part.steps.append(self._step(operation, rest))
        self._link(labels, waiting)

    def _link(self, labels: dict[str, int], waiting: Sequence[tuple[Part, str]]) -> None:
        """Tell parts where their branches lead; what has none goes on with the next."""
        for part, name in waiting:
            part.target = labels[name]
            if part.condition is None:
                part.after = -1
        for part in self.parts:
            if part.target < 0:
                part.target, part.after = part.after, -1

    def _operand(self, word: str, kind: str) -> Operand:
        """Return what reads an operand as lanes of a type."""
        dtype = TYPES[kind]
        register = re.fullmatch(r"%([a-z]+)(\d+|)", word)
        if register and register[1] in REGISTERS:
            return lambda block: _viewed(block.registers[word], dtype)
        if register and register[1] == "temp":
            return lambda block: _viewed(block.registers[word], dtype)
        if word.startswith("%"):
            return lambda block: block.special[word].astype(dtype)
        if word in self.shared:
            begin = self.shared[word]
            return lambda block: np.full(block.lanes, begin, dtype)
        value = _number(word, dtype)
        return lambda block: np.full(block.lanes, value, dtype)

    def _step(self, operation: str, rest: str) -> Step:
        words = [w.strip() for w in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", rest)]
        first, *suffixes = operation.split(".")
        kind = suffixes[-1] if suffixes and suffixes[-1] in TYPES else "b32"
        makers = {
            "bar": self._barrier,
            "ld": self._load,
            "st": self._store,
            "mov": self._move,
            "cvta": self._move,
            "setp": self._comparison,
            "selp": self._selection,
            "cvt": self._conversion,
        }
        if first in makers:
            return makers[first](suffixes, words, kind)
        return self._arithmetic(first, suffixes, words, kind)

    def _arithmetic(
        self, first: str, suffixes: Sequence[str], words: Sequence[str], kind: str
    ) -> Step:
        target, *given = words
        reads = [self._operand(word, kind) for word in given]
        call = OPERATIONS["mul.hi" if "hi" in suffixes else first]
        if "wide" in suffixes:
            wide = np.dtype(f"{TYPES[kind].kind}8")
            reads[2:] = [self._operand(word, f"{kind[0]}64") for word in given[2:]]
            return lambda block, mask: block.put(
                target, call(*(read(block).astype(wide) for read in reads)), mask
            )
        if first in {"shl", "shr"}:
            reads[1] = self._operand(given[1], "u32")
        return lambda block, mask: block.put(target, call(*(read(block) for read in reads)), mask)

    def _move(self, suffixes: Sequence[str], words: Sequence[str], kind: str) -> Step:
        if any("{" in word for word in words):
            return self._packed(words)
        target, read = words[0], self._operand(words[1], kind)
        if suffixes[0] == "shared":
            return lambda block, mask: block.put(target, read(block) + np.uint64(SHARED), mask)
        return lambda block, mask: block.put(target, read(block), mask)

    def _selection(self, _suffixes: Sequence[str], words: Sequence[str], kind: str) -> Step:
        a, b = (self._operand(word, kind) for word in words[1:3])
        p = self._operand(words[3], "pred")
        return lambda block, mask: block.put(words[0], np.where(p(block), a(block), b(block)), mask)

    def _barrier(self, suffixes: Sequence[str], words: Sequence[str], _kind: str) -> Step:
        if "red" not in suffixes:
            return lambda _block, _mask: None
        read = self._operand(words[2], "pred")
        calls: dict[str, Callable[[Lanes], Any]] = {"or": np.any, "popc": np.count_nonzero}
        call = calls[suffixes[1]]

        def reduce(block: Block, mask: NDArray[np.bool_]) -> None:
            block.put(words[0], np.full(block.lanes, call(read(block) & mask)), mask)

        return reduce

    def _comparison(self, suffixes: Sequence[str], words: Sequence[str], kind: str) -> Step:
        target, *given = words
        a, b = (self._operand(word, kind) for word in given)
        name = suffixes[0]
        if name in ORDERED:
            call = COMPARISONS[ORDERED[name]]
            return lambda block, mask: block.put(target, ~call(a(block), b(block)), mask)
        call = COMPARISONS[name]
        return lambda block, mask: block.put(target, call(a(block), b(block)), mask)

    def _conversion(self, suffixes: Sequence[str], words: Sequence[str], kind: str) -> Step:
        target, read, dtype = words[0], self._operand(words[1], kind), TYPES[suffixes[-2]]
        rounded = next((ROUNDED[s] for s in suffixes if s in ROUNDED), None)
        if rounded is None and dtype.kind in "iu" and TYPES[kind].kind == "f":
            rounded = np.trunc

        def convert(block: Block, mask: NDArray[np.bool_]) -> None:
            value = read(block)
            if rounded is not None:
                value = rounded(value)
                if dtype.kind in "iu":
                    limits = np.iinfo(dtype)
                    value = np.clip(np.nan_to_num(value.astype(np.float64)), limits.min, limits.max)
            if "sat" in suffixes:
                value = np.clip(value, 0, 1)
            block.put(target, value.astype(dtype), mask)

        return convert

    def _packed(self, words: Sequence[str]) -> Step:
        target, source = words
        if target.startswith("{"):
            low, high = re.findall(r"%\w+", target)
            read = self._operand(source, "b64")

            def split(block: Block, mask: NDArray[np.bool_]) -> None:
                both = read(block)
                block.put(low, both.astype(np.uint32), mask)
                block.put(high, (both >> np.uint64(32)).astype(np.uint32), mask)

            return split
        ends = [self._operand(word, "u32") for word in re.findall(r"%?\w+", source)]

        def join(block: Block, mask: NDArray[np.bool_]) -> None:
            low, high = (end(block).astype(np.uint64) for end in ends)
            block.put(target, low | (high << np.uint64(32)), mask)

        return join

    def _load(self, suffixes: Sequence[str], words: Sequence[str], kind: str) -> Step:
        names, dtype = re.findall(r"%\w+", words[0]), TYPES[kind]
        if "param" in suffixes:
            number = self.parameters.index(words[1].strip("[]"))
            return lambda block, mask: block.put(
                names[0], np.full(block.lanes, np.asarray(block.given[number]).astype(dtype)), mask
            )
        places = self._places(suffixes, words[1], dtype)

        def load(block: Block, mask: NDArray[np.bool_]) -> None:
            memory, at = places(block, mask)
            for n, name in enumerate(names):
                block.put_some(name, memory[at + n], mask)

        return load

    def _store(self, suffixes: Sequence[str], words: Sequence[str], kind: str) -> Step:
        reads = [self._operand(name, kind) for name in re.findall(r"[-%\w.]+", words[1])]
        places = self._places(suffixes, words[0], TYPES[kind])

        def store(block: Block, mask: NDArray[np.bool_]) -> None:
            memory, at = places(block, mask)
            for n, read in enumerate(reads):
                memory[at + n] = read(block)[mask]

        return store

    def _places(self, suffixes: Sequence[str], address: str, dtype: np.dtype[Any]) -> Places:
        """Return what finds an access's memory, as numbers of a type, and where in it."""
        where = re.fullmatch(r"\[([%$\w]+)(?:\+(-?\d+))?\]", address)
        assert where is not None, address
        read, offset = self._operand(where[1], "u64"), int(where[2] or 0)
        known, shared = "global" in suffixes or "shared" in suffixes, "shared" in suffixes

        def places(block: Block, mask: NDArray[np.bool_]) -> tuple[Lanes, Lanes]:
            at, memory = read(block)[mask].astype(np.int64) + offset, block.memory
            if not known and len(at) and at[0] >= SHARED:
                at, memory = at - SHARED, block.shared
            elif shared:
                memory = block.shared
            return memory.view(dtype), at // dtype.itemsize

        return places


def _with_own_names(body: str) -> str:
    """Return code in which a register of an inner scope has no outer one's name."""

    def renamed(scope: re.Match[str]) -> str:
        text = scope[0]
        for own in set(re.findall(r"\.reg \.\w+\s+(%\w+);", text)):
            text = re.sub(rf"{own}\b", f"{own}000000", text)
        return text

    return re.sub(r"\{\s*\.reg[^{}]*(?:\{[^{}]*\}[^{}]*)*\}", renamed, body)


def _condition(predicate: str, negated: str) -> Operand:
    if negated:
        return lambda block: ~block.registers[predicate]
    return lambda block: block.registers[predicate]


def _viewed(lanes: Lanes, dtype: np.dtype[Any]) -> Lanes:
    if lanes.dtype == dtype:
        return lanes
    return lanes.view(dtype) if lanes.dtype.itemsize == dtype.itemsize else lanes.astype(dtype)


def _number(word: str, dtype: np.dtype[Any]) -> Any:
    """Read a literal; a float's is the bits of one."""
    if word.startswith(("0f", "0F")):
        return np.uint32(int(f"0x{word[2:]}", 0)).view(np.float32)
    if word.startswith(("0d", "0D")):
        return np.uint64(int(f"0x{word[2:]}", 0)).view(np.float64)
    if dtype.kind == "b":
        return bool(int(word))
    return np.array(int(word, 0) % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype)


def _post_dominators(parts: Sequence[Part]) -> list[int]:
    """Return the part where all ways from each meet again first; -1 is the end."""
    end = len(parts)
    after = [[p for p in (part.target, part.after) if p >= 0] or [end] for part in parts]
    found: list[set[int]] = [set(range(end + 1)) for _ in parts] + [{end}]
    changed = True
    while changed:
        changed = False
        for n in reversed(range(end)):
            new = {n} | set.intersection(*(found[m] for m in after[n]))
            changed, found[n] = changed or new != found[n], new
    nearest = []
    for n in range(end):
        others = found[n] - {n}
        # Of those that must be passed, the first is passed before all others.
        first = max(others, key=lambda m: len(found[m]))
        nearest.append(-1 if first == end else first)
    return nearest


class Block:
    """One block of a launch.

    Parameters
    ----------
    program : Program
        What it runs.
    given : sequence
        Parameters, as numbers.
    memory : ndarray of uint8
        Global memory.
    shape : tuple of int
        Threads along x, y, z.
    place, grid : tuple of int
        Its place among the blocks, and how many there are.
    """

    def __init__(
        self,
        program: Program,
        given: Sequence[Any],
        memory: NDArray[np.uint8],
        shape: tuple[int, int, int],
        place: tuple[int, int, int],
        grid: tuple[int, int, int],
    ) -> None:
        self.program, self.given, self.memory = program, given, memory
        self.lanes = int(np.prod(shape))
        self.shared = np.zeros(-(-program.shared_size // 8) * 8 + 8, np.uint8)
        self.registers: dict[str, Lanes] = {}
        self.counts: Counter[str] = Counter()
        z, y, x = (n.reshape(-1) for n in np.indices(shape[::-1]))
        self.special = {}
        for axis, thread in zip("xyz", (x, y, z), strict=True):
            n = "xyz".index(axis)
            self.special[f"%tid.{axis}"] = thread
            for name, value in (("ntid", shape[n]), ("ctaid", place[n]), ("nctaid", grid[n])):
                self.special[f"%{name}.{axis}"] = np.full(self.lanes, value)

    def put(self, name: str, value: Lanes, mask: NDArray[np.bool_]) -> None:
        """Set a register in the lanes of a mask."""
        kept = self._register(name)
        np.copyto(kept, _viewed(value, kept.dtype), where=mask)

    def put_some(self, name: str, value: Lanes, mask: NDArray[np.bool_]) -> None:
        """Set a register in the lanes of a mask to as many values."""
        kept = self._register(name)
        kept[mask] = _viewed(value, kept.dtype)

    def _register(self, name: str) -> Lanes:
        if name not in self.registers:
            letters = re.fullmatch(r"%([a-z]+)\d*", name)
            assert letters is not None
            kind = TYPES[REGISTERS.get(letters[1], "u32")]
            self.registers[name] = np.zeros(self.lanes, kind)
        return self.registers[name]

    def run(self) -> Counter[str]:
        """Run all threads to their end; return machine instructions of all warps by unit."""
        parts, meets = self.program.parts, self.program.meets
        ahead: list[tuple[int, int, NDArray[np.bool_]]] = [(0, -1, np.ones(self.lanes, bool))]
        with np.errstate(all="ignore"):
            while ahead:
                at, end, mask = ahead.pop()
                while at not in {end, -1}:
                    part = parts[at]
                    self._count(part, mask)
                    for step in part.steps:
                        step(self, mask)
                    if part.condition is None:
                        at = part.target
                        continue
                    taken = part.condition(self)
                    yes, no = mask & taken, mask & ~taken
                    if not yes.any() or not no.any():
                        at = part.target if yes.any() else part.after
                        continue
                    meet = meets[at]
                    ahead.append((meet, end, mask))
                    ahead.append((part.after, meet, no))
                    at, end, mask = part.target, meet, yes
        return self.counts

    def _count(self, part: Part, mask: NDArray[np.bool_]) -> None:
        whole = np.pad(mask, (0, -len(mask) % WARP)).reshape(-1, WARP)
        warps = int(whole.any(1).sum())
        for unit, cost in part.cost.items():
            self.counts[unit] += warps * cost


class Launch:
    """A launch of a kernel on tensors, of which some blocks or all are run.

    Parameters
    ----------
    program : Program
        The kernel.
    blocks, threads : sequence of int
        Along x, y, z.
    given : sequence of Tensor, number or tuple of such
        Arguments.
    """

    def __init__(
        self, program: Program, blocks: Sequence[int], threads: Sequence[int], given: Iterable[Any]
    ) -> None:
        self._program = program
        self._grid = (*blocks, 1, 1)[:3]
        along, down, deep, *_ = *threads, 1, 1
        self._threads = along, down, deep
        self._tensors: list[tuple[torch.Tensor, int]] = []
        self._numbers: list[Any] = []
        self._size = ALIGNED
        for one in given:
            self._add(one)
        self._memory = np.zeros(-(-self._size // 8) * 8, np.uint8)

    def _add(self, given: Any) -> None:
        if isinstance(given, tuple):
            for one in given:
                self._add(one)
        elif isinstance(given, torch.Tensor):
            self._tensors.append((given, self._size))
            strides = [s * given.element_size() for s in given.stride()]
            about = [0, 0, given.numel(), given.element_size(), self._size, *given.shape, *strides]
            self._numbers += about
            self._size += -(-max(1, given.nbytes) // ALIGNED) * ALIGNED
        else:
            self._numbers.append(given)

    def run(self, most: int | None = None) -> Counter[str]:
        """Run all blocks, or about `most` of them, and write back what they have changed.

        Returns machine instructions of all warps by unit, of all blocks as of those that were run.
        """
        for tensor, begin in self._tensors:
            data = tensor.detach().contiguous().numpy().reshape(-1).view(np.uint8)
            self._memory[begin : begin + len(data)] = data
        total = int(np.prod(self._grid))
        some = range(total) if most is None else range(0, total, max(1, total // most))
        counts: Counter[str] = Counter()
        x, y, z = self._grid
        for n in some:
            place = n % x, n // x % y, n // (x * y)
            counts += Block(
                self._program, self._numbers, self._memory, self._threads, place, (x, y, z)
            ).run()
        for tensor, begin in self._tensors:
            data = self._memory[begin : begin + tensor.nbytes]
            values = data.view(tensor.detach().numpy().dtype).reshape(tensor.shape)
            tensor.detach().copy_(torch.from_numpy(values))
        return Counter({unit: number * total / len(some) for unit, number in counts.items()})
