"""Files with something wrong, made anew: bits, lengths, cells, counts, values of JSON, odd tensors.

Each ends in one of our errors, in one line and quickly, or in a reading. ``GAUSSFIT_MUTATIONS``
is how many of each kind (a dozen); ``GAUSSFIT_MUTATIONS_SEED`` which.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from attacked import outcomes
from napari_gaussfit.fitting.fit import Fit
from napari_gaussfit.fitting.result import load
from napari_gaussfit.formats.csv import write_csv
from napari_gaussfit.jobs.fit_folder import FitFolder
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.ome_zarr import write_ome_zarr
from napari_gaussfit.stacks.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Rng = np.random.Generator
    Mutation = Callable[[bytes, Rng], bytes]

COUNT = int(os.environ.get("GAUSSFIT_MUTATIONS", "12"))
SEED = int(os.environ.get("GAUSSFIT_MUTATIONS_SEED", "0"))

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 3, 1.5, 1e39, -3.4e38, 1e-320, 1e12, 10**300, 2**63),
    *(float("nan"), float("inf"), "", "x", "nan", "x" * 5000, "\x1b[2J\n", [], {}, [1, 2, 3]),
    *([-1, 2, 3], [None] * 3, [float("nan")] * 3, [1e-200] * 3, [10**12] * 3, [[1], [1], [1]]),
    *({"x": 1}, ["x"], [[[[[[]]]]]], [0] * 5000),
)
TOKENS = (
    *(b"", b"0", b"-1", b"3", b"1e39", b"-1e400", b"nan", b"inf", b"x", b"1e-320", b"\xff", b"1,5"),
    *(b"9" * 500, b"99999999999", b"2147483648", b'"', b"None", b"list uchar int", b"<x>", b"\n"),
)
SHAPE = (5, 6, 7)


def bits(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    # Headers are short, and what is in them matters most.
    end = len(data) if rng.random() < 0.5 else min(len(data), 400)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(len(data)))]


def spliced(data: bytes, rng: Rng) -> bytes:
    """Leave a piece out, double it, or put noise in."""
    first, end = np.sort(rng.integers(len(data), size=2)).tolist()
    piece = (b"", 2 * data[first:end], rng.bytes(int(rng.integers(1, 40))))[int(rng.integers(3))]
    return data[:first] + piece + data[end:]


def cells(data: bytes, rng: Rng) -> bytes:
    """Put something else in place of a word or a number."""
    words = list(re.finditer(rb"[A-Za-z0-9_.+-]+", data[:20_000]))
    word = words[int(rng.integers(len(words)))]
    return data[: word.start()] + TOKENS[int(rng.integers(len(TOKENS)))] + data[word.end() :]


def odd_json(value: Any, rng: Rng) -> Any:
    """Return a value of JSON with something in it changed, left out or put in."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = [*value][int(rng.integers(len(value)))]
        if rng.random() < 0.15:
            return {key: inner for key, inner in value.items() if key != name}
        return value | {name: odd_json(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        n = int(rng.integers(len(value)))
        return [*value[:n], odd_json(value[n], rng), *value[n + 1 :]]
    return ODD[int(rng.integers(len(ODD)))]


def odd_text(text: str, rng: Rng) -> str:
    if rng.random() < 0.03:
        return "[" * 100_000
    return json.dumps(odd_json(json.loads(text), rng))


def in_json(data: bytes, rng: Rng) -> bytes:
    return odd_text(data.decode(), rng).encode()


def in_header(data: bytes, rng: Rng) -> bytes:
    """Change what a safetensors file says of itself, its lengths right."""
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    own = header["__metadata__"]
    if rng.random() < 0.8:
        header["__metadata__"] = {name: odd_text(text, rng) for name, text in own.items()}
    else:
        header = odd_json(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def in_comment(data: bytes, rng: Rng) -> bytes:
    """Change the JSON in a PLY's comment."""
    found = re.search(rb"\{.*\}", data)
    assert found is not None
    text = odd_text(found[0].decode(), rng).encode()
    return data[: found.start()] + text + data[found.end() :]


def in_tensors(data: bytes, rng: Rng) -> bytes:
    """Change the numbers of a safetensors file to what float32 has at its ends."""
    (length,) = struct.unpack("<Q", data[:8])
    changed = bytearray(data)
    ends = (0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x00000001, 0x00000000)
    for _ in range(int(rng.integers(1, 4))):
        place = 8 + length + 4 * int(rng.integers((len(data) - 8 - length) // 4))
        changed[place : place + 4] = struct.pack("<I", ends[int(rng.integers(len(ends)))])
    return bytes(changed)


def in_state(data: bytes, rng: Rng) -> bytes:
    """Change the words of a fit's state, which are JSON in a tensor of bytes."""
    from safetensors.numpy import load, save

    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    arrays = load(data)
    name = [name for name in arrays if name.startswith("state.")][int(rng.integers(7)) % 5]
    if name == "state.words" or rng.random() < 0.5:
        words = odd_text(arrays["state.words"].tobytes().decode(), rng).encode()
        arrays["state.words"] = np.frombuffer(words, np.uint8)
    elif rng.random() < 0.3:
        del arrays[name]
    else:
        array = arrays[name]
        odd = (
            array[:1],
            array[..., None],
            array.astype(np.int16),
            np.full_like(array, 255),
            array[:0],
        )
        arrays[name] = np.ascontiguousarray(odd[int(rng.integers(len(odd)))])
    return save(arrays, metadata)


def odd_tensor(rng: Rng) -> Any:
    made: tuple[Callable[[], Any], ...] = (
        lambda: torch.zeros(4, 3).to_sparse(),
        lambda: torch.zeros(4, 3, device="meta"),
        lambda: torch.zeros(4, 3, dtype=torch.complex64),
        lambda: torch.zeros(4, 3, dtype=torch.bfloat16),
        lambda: torch.zeros(4, 3, dtype=torch.bool),
        lambda: torch.quantize_per_tensor(torch.zeros(4, 3), 0.1, 0, torch.quint8),
        lambda: torch.zeros(1, 1).expand(4, 3),
        lambda: torch.full((4, 3), float(rng.choice([np.nan, np.inf, 3e38, -800.0, 800.0]))),
        lambda: torch.zeros(()),
        lambda: torch.zeros(0, 3),
        lambda: torch.zeros(4, 3, requires_grad=True),
        lambda: ODD[int(rng.integers(len(ODD)))],
    )
    return made[int(rng.integers(len(made)))]()


def in_checkpoint(data: bytes, rng: Rng) -> bytes:
    import io

    contents = torch.load(io.BytesIO(data), weights_only=True)
    names = [*contents, "aabb", "model_state_dict"]
    contents[names[int(rng.integers(len(names)))]] = odd_tensor(rng)
    file = io.BytesIO()
    torch.save(contents, file, _use_new_zipfile_serialization=bool(rng.random() < 0.7))
    return file.getvalue()


KINDS: dict[str, tuple[str, tuple[Mutation, ...], tuple[str, ...]]] = {
    "fit": ("fit.safetensors", (bits, cut, spliced, in_header, in_header, in_tensors),
            ("info", "view", "table", "volume")),
    "resume": ("fit.safetensors", (in_state, in_state, in_state, in_header, in_tensors),
               ("resume",)),
    "table": ("table.csv", (bits, cut, spliced, cells, cells), ("table",)),
    "binary scene": ("scene.ply", (bits, cut, spliced, cells, in_comment), ("view", "scene")),
    "scene": ("ascii.ply", (bits, cut, spliced, cells, cells, in_comment), ("view", "volume")),
    "checkpoint": ("model.pt", (bits, cut, spliced, in_checkpoint, in_checkpoint), ("table",)),
    "tiff": ("stack.ome.tif", (bits, cut, spliced, cells, cells), ("info",)),
    "imagej": ("stack.tif", (bits, cut, cells, cells), ("info",)),
    "zarr": ("volume.ome.zarr", (in_json, cells, cut, bits), ("info",)),
}  # fmt: skip
"""Of each kind: the sound file, what may be done to it, and the commands that read it."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound file of each kind, and the stack of an unfinished fit."""
    folder = tmp_path_factory.mktemp("originals")
    voxels = np.random.default_rng(2).normal(100, 9, SHAPE).astype(np.float32)
    voxels[2, 3, 4] = 900
    sizes = {f"PhysicalSize{axis}": 0.5 for axis in "XYZ"}
    tifffile.imwrite(
        folder / "stack.ome.tif", voxels, photometric="minisblack",
        metadata={"axes": "ZYX", **sizes},
    )  # fmt: skip
    tifffile.imwrite(folder / "stack.tif", voxels, imagej=True, metadata={"axes": "ZYX"})
    stack = Stack.open(folder / "stack.ome.tif")
    fit = Fit(stack, FitSettings(exactly=True, gaussians=3, iterations=12, views=4, held_out=1))
    for _ in fit:
        pass
    FitFolder(folder, (stack,)).save(fit.checkpoint())
    saved = load(folder / "fit.safetensors")
    replace(saved, settings=replace(fit.settings, iterations=14)).save(folder / "fit.safetensors")
    write_csv(folder / "table.csv", saved.field, saved.stack.spacing)
    saved.export(folder / "scene.ply")
    from plyfile import PlyData

    ply = PlyData.read(str(folder / "scene.ply"), mmap=False)
    ply.text = True
    ply.write(str(folder / "ascii.ply"))
    write_ome_zarr(
        folder / "volume.ome.zarr", voxels, spacing=(0.5, 0.5, 0.5), unit="micrometer", name="v"
    )
    shapes = {"means": (4, 3), "log_scales": (4, 3), "weights": (4,)}
    torch.save({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.pt")
    return folder


def written(kind: str, original: Path, folder: Path, rng: Rng) -> Path:
    """Write a mutated file of a kind into a folder of its own."""
    _, mutations, _ = KINDS[kind]
    mutation = mutations[int(rng.integers(len(mutations)))]
    folder.mkdir()
    target = folder / original.name
    if original.is_dir():
        shutil.copytree(original, target)
        parts = sorted(path for path in target.rglob("*json*") if path.is_file())
        part = parts[int(rng.integers(len(parts)))]
        part.write_bytes(mutation(part.read_bytes(), rng))
    else:
        target.write_bytes(mutation(original.read_bytes(), rng))
    return target


@pytest.mark.filterwarnings("ignore")  # of torch, as odd tensors are made
def test_every_mutated_file_ends_in_an_error_of_ours_or_in_a_reading(
    originals: Path, tmp_path: Path
) -> None:
    tasks = []
    for kind, (name, _, commands) in KINDS.items():
        for n in range(COUNT):
            rng = np.random.default_rng([SEED, n, *kind.encode()])
            folder = tmp_path / f"{kind.replace(' ', '-')}-{n}"
            path = written(kind, originals / name, folder, rng)
            tasks += [(path, command) for command in commands]
    warm_up = (originals / "fit.safetensors", "resume")
    found = list(outcomes(tasks, originals / "stack.ome.tif", warm_up))
    assert [(one.path, one.command) for one in found] == tasks
    wrong = [f"{one.path.parent.name} {one.row}" for one in found if one.wrong]
    assert not wrong, f"{len(wrong)} of {len(tasks)}:\n" + "\n".join(wrong[:200])
    assert {one.code for one in found} == {0, 2}
