"""The measuring itself: images through the network, and its vectors to distances and sketches, batch after batch."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from finegpr.arrays import Ints
from finegpr.catalog import Catalog
from finegpr.contents import Contents, Reader
from finegpr.errors import StateError
from finegpr.measuring.config import MeasureConfig
from finegpr.measuring.files import shard_schema
from finegpr.measuring.networks import load_network
from finegpr.measuring.networks.base import LoadedWeights
from finegpr.measuring.reference import build_network, fit_settings, load_reference
from finegpr.pixels.allocator import give_back_freed_blocks
from finegpr.pixels.prefetch import Decoder, Reading
from finegpr.pixels.transfer import OnHost, on_device


class Meter:
    """The network and the reference of ``folder``, ready to measure rows of ``catalog``; sets the process's threads.

    ``decoding_threads`` prepare images before the network needs them (None: as many as the cores suggest), ``weights``
    are those of the config unless given. Raises StateError when the folder was fitted with other settings.
    """

    def __init__(
        self,
        config: MeasureConfig,
        folder: Path,
        catalog: Catalog,
        *,
        weights: LoadedWeights | None = None,
        decoding_threads: int | None = None,
    ) -> None:
        self.config = config
        self.catalog = catalog
        self.reference = load_reference(folder)
        found = weights or config.find_weights()
        settings = fit_settings(config, found)
        if different := [name for name in settings if settings[name] != self.reference.settings.get(name)]:
            raise StateError(f"{folder} was fitted with other settings ({', '.join(different)}); fit it again")
        self.network = build_network(config, weights or load_network(found))
        device = self.network.device
        self._bases = [basis.to(device) for basis in self.reference.bases]
        self._units = torch.tensor([basis.spread or 1.0 for basis in self._bases], device=device).sqrt()
        self._means = {
            name: [mean.to(device) for mean in target.mean] for name, target in self.reference.targets.items()
        }
        self._constants = {
            name: torch.from_numpy(target.constant).float().to(device)
            for name, target in self.reference.targets.items()
        }
        self._reader = Reader(catalog.root)
        self._decoder = Decoder(
            height=config.height,
            width=config.width,
            batch_size=config.batch_size,
            device=device,
            threads=decoding_threads,
            read=self._reader,
        )
        self._expected: dict[bytes, tuple[Reading, Future[Ints]]] = {}
        self._turn = Lock()

    def expect(self, rows: Ints) -> None:
        """Begin to decode ``rows``, which are measured next."""
        self._expected[rows.tobytes()] = self._begin(rows)

    def measure(self, rows: Ints) -> pa.Table:
        """``look`` without what the images held."""
        return self.look(rows)[0]

    def look(self, rows: Ints, tick: Callable[[int], None] = lambda _: None) -> tuple[pa.Table, Contents]:
        """Columns of ``measurements.shard_schema``, in the order of ``rows``; an unreadable image is ok=False. And what
        the files held that were read for it. ``tick`` is told of each batch how many images it had.

        Several threads may call: the images of one are decoded while the network works for another.
        """
        begun = self._expected.pop(rows.tobytes(), None)
        reading, looked = self._begin(rows) if begun is None else begun
        num_coordinates = sum(basis.directions.shape[1] for basis in self._bases)
        schema = shard_schema(list(self._means), len(self._bases), num_coordinates)
        columns: dict[str, NDArray[Any]] = {
            field.name: np.zeros((len(rows), field.type.list_size), dtype=field.type.value_type.to_pandas_dtype())
            for field in schema
            if pa.types.is_fixed_size_list(field.type)
        }
        reasons: list[str | None] = [None] * len(rows)
        with closing(reading), self._turn:
            for positions, measured in self._batches(reading, reasons):
                for name, values in measured.items():
                    columns[name][positions] = values.numpy()
                tick(len(positions))
        arrays = {
            "row": pa.array(rows),
            "ok": pa.array([reason is None for reason in reasons]),
            "reason": pa.array(reasons, pa.string()),
            **{
                name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
                for name, values in columns.items()
            },
        }
        table = pa.table([arrays[field.name].cast(field.type) for field in schema], schema=schema)
        return table, self._reader.contents(self._names(rows), looked)

    def close(self) -> None:
        """End the decoding threads and give the network's memory back."""
        self._decoder.close()
        self._reader.close()
        give_back_freed_blocks()

    def _begin(self, rows: Ints) -> "tuple[Reading, Future[Ints]]":
        names = self._names(rows)
        looked = self._reader.begin(names)
        return self._decoder.read([self.catalog.root / name for name in names]), looked

    def _names(self, rows: Ints) -> NDArray[Any]:
        return np.asarray(self.catalog.frame["path"].iloc[rows], dtype=object)

    @property
    def decoding_threads(self) -> int:
        """How many images are decoded at a time."""
        return self._decoder.threads

    @torch.inference_mode()
    def _batches(self, reading: Reading, reasons: list[str | None]) -> Iterator[tuple[Ints, dict[str, Tensor]]]:
        """Positions and columns of each batch, in memory of the host. A GPU is given the next batch before they are."""
        waiting = None
        for images in on_device(reading, self.network.device):
            for position, reason in images.bad:
                reasons[position] = reason
            if not len(images.positions):
                continue
            vectors = self.network(images.pixels)
            begun = images.positions, OnHost(self.sketches(vectors) | self.terms(vectors))
            if waiting is not None:
                yield waiting[0], waiting[1].wait()
            waiting = begun
        if waiting is not None:
            yield waiting[0], waiting[1].wait()

    def sketches(self, vectors: list[Tensor]) -> dict[str, Tensor]:
        """Columns sketch (n, S), norms and off_basis (n, T) of a batch, from its vectors per term."""
        sketch, norms, off_basis = [], [], []
        for basis, unit, vector in zip(self._bases, self._units, vectors, strict=True):
            coordinates, norm, off = basis.project(vector)
            sketch.append(coordinates / unit)
            norms.append(norm)
            off_basis.append(off)
        return {
            "sketch": torch.cat(sketch, dim=1),
            "norms": torch.stack(norms, dim=1),
            "off_basis": torch.stack(off_basis, dim=1),
        }

    def terms(self, vectors: list[Tensor]) -> dict[str, Tensor]:
        """Column terms/NAME (n, T) of each target."""
        columns = {}
        for name, means in self._means.items():
            squared = [
                torch.linalg.vector_norm(vector - mean, dim=1).square()
                for vector, mean in zip(vectors, means, strict=True)
            ]
            columns[f"terms/{name}"] = torch.stack(squared, dim=1) + self._constants[name]
        return columns
