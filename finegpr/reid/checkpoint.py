"""Checkpoints: tensors and facts in one safetensors file that knows its own digest."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finegpr.errors import InputError, StateError
from finegpr.faults import patiently
from finegpr.reid.model import Embedder
from finegpr.storage import canonical_hash, read_arrays, sha256, write_arrays

Arrays = dict[str, NDArray[Any]]


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Atomically write tensors, and JSON-ready facts in the metadata. Same content, same bytes."""
    arrays = {name: np.atleast_1d(tensor.detach().cpu().numpy()) for name, tensor in sorted(tensors.items())}
    text = json.dumps(dict(facts), sort_keys=True, allow_nan=False)
    # One metadata entry only: safetensors writes several in an order that differs from process to process.
    write_arrays(path, arrays, {"checkpoint": json.dumps({"facts": text, "sha256": _digest(arrays, text)})})


def read_checkpoint(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Tensors (a scalar has shape (1,)) and facts. Raises InputError for another file, StateError for a damaged one."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a model; `aost train` writes model.safetensors")
    if not path.exists():
        raise InputError(f"no model {path}; `aost train` writes model.safetensors")
    arrays = read_arrays(path)
    data = patiently(path.read_bytes, path)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    try:
        entry = json.loads(header["__metadata__"]["checkpoint"])
        text, expected = entry["facts"], entry["sha256"]
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path} is not a re-ID checkpoint of this program (its metadata lacks 'checkpoint')"
        ) from None
    if _digest(arrays, text) != expected:
        raise StateError(
            f"{path} is damaged (its content does not match its digest); restore it from a copy, or train again"
        )
    return arrays, json.loads(text)


def load_state(module: torch.nn.Module, arrays: Arrays, *, prefix: str = "") -> None:
    """Put the tensors whose names begin with ``prefix`` into a module, which may hold fewer."""
    state = {
        name: torch.from_numpy(arrays[prefix + name].copy()).reshape(value.shape)
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state)


def read_embedder(path: Path) -> Embedder:
    """The network of a training's final checkpoint, on the CPU. Raises InputError when ``path`` is another file."""
    arrays, facts = read_checkpoint(path)
    if "embedder" not in facts:
        raise InputError(f"{path} is the state of an unfinished training, expected its model.safetensors")
    model, height, width = (facts["embedder"][name] for name in ("model", "height", "width"))
    embedder = Embedder(model=model, size=(height, width))
    load_state(embedder, arrays)
    return embedder


def _digest(arrays: Arrays, text: str) -> str:
    content = {name: [str(array.dtype), list(array.shape), sha256(array.tobytes())] for name, array in arrays.items()}
    return canonical_hash([content, text])
