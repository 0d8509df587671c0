"""Folders of images that are on no disk of this machine: ``s3://bucket/prefix`` and whatever else pyarrow.fs opens."""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from finegpr.errors import ConfigError, UnreachableError, UnreadableError
from finegpr.faults import is_of_file
from finegpr.home import from_home

# What pyarrow.fs opens is given as a URL; one letter before the colon is a drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# What an address may say of how its store is opened; all else could send the credentials to a host of its choice.
_SETTINGS = ("region", "project_id", "user")
_HARMLESS = re.compile(rf"({'|'.join(_SETTINGS)})=[A-Za-z0-9_-]*")
# pyarrow's own S3 client tries again every 0.2 s for 6 s; this is the backoff around that, and around other stores.
PAUSES_SECONDS = (0.5, 2.0)
# As the AWS client names what passes by itself; anything else (a wrong key, no such bucket) is the user's to mend.
_PASSING = re.compile(r"NETWORK_CONNECTION|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING|TIMEOUT|curlCode")

T = TypeVar("T")


@dataclass(frozen=True)
class Stat:
    """Size in bytes and time of change in nanoseconds, named as in ``os.stat_result``."""

    st_size: int
    st_mtime_ns: int


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A folder or file below a remote root, with the few methods of ``pathlib.Path`` that reading a catalog needs.

    ``root`` is a URL without a slash at its end, percent-encoded (``s3://bucket/my%20photos?region=eu-west-1``);
    ``relative`` is a path below it, as it is stored, with ``/``. It travels between processes as these two texts, and
    each process opens its own connection. Credentials, region and endpoint come from where the store's client looks
    for them (``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``, ``~/.aws`` ...).

    What is not there raises FileNotFoundError; anything else that fails is tried three times, then an
    UnreachableError where it may pass by itself, an UnreadableError where it will not.
    """

    root: str
    relative: str = ""

    def __truediv__(self, path: str) -> "RemotePath":
        return RemotePath(self.root, "/".join(filter(None, (self.relative, path))))

    def __str__(self) -> str:
        """The URL; ``locate`` gives back a path of the same file."""
        if not self.relative:
            return self.root
        base, mark, query = self.root.partition("?")
        return f"{base}/{quote(self.relative)}{mark}{query}"

    @property
    def name(self) -> str:
        """The last part of the path; of a whole bucket, its name."""
        parts = urlsplit(self.root)
        return PurePosixPath(self.relative or unquote(parts.path)).name or parts.netloc

    def absolute(self) -> "RemotePath":
        """Itself."""
        return self

    def resolve(self) -> "RemotePath":
        """Itself: there are no links."""
        return self

    def exists(self) -> bool:
        """Whether it is a file, or a folder with something in it."""
        return bool(self._info().type != fs.FileType.NotFound)

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(self._info().type == fs.FileType.File)

    def is_dir(self) -> bool:
        """Whether something lies below it."""
        return bool(self._info().type == fs.FileType.Directory)

    def stat(self) -> Stat:
        """Size and time of change of a file."""
        info = self._info()
        if info.type != fs.FileType.File:
            raise FileNotFoundError(str(self))
        return Stat(info.size, info.mtime_ns or 0)

    def read_bytes(self, limit: int | None = None) -> bytes:
        """The file's bytes, or the first ``limit`` of them."""

        def read(store: Any, path: str) -> bytes:
            with store.open_input_file(path) as stream:
                return bytes(stream.read(limit))

        return self._try(read)

    def entries(self, *, recursive: bool = False) -> list[tuple[str, bool]]:
        """(path below this folder, whether it is a file) of what is in it, in the store's order."""

        def list_(store: Any, path: str) -> list[tuple[str, bool]]:
            found = store.get_file_info(fs.FileSelector(path, recursive=recursive))
            return [(info.path[len(path) + 1 :], info.type == fs.FileType.File) for info in found]

        return self._try(list_)

    def stats(self) -> dict[str, Stat]:
        """Size and time of change of every file below this folder, by its path below it: one listing."""

        def list_(store: Any, path: str) -> dict[str, Stat]:
            found = store.get_file_info(fs.FileSelector(path, recursive=True))
            return {
                info.path[len(path) + 1 :]: Stat(info.size, info.mtime_ns or 0)
                for info in found
                if info.type == fs.FileType.File
            }

        return self._try(list_)

    def iterdir(self) -> "Iterator[RemotePath]":
        """What is in this folder."""
        return (self / path for path, _ in self.entries())

    def _info(self) -> Any:
        return self._try(lambda store, path: store.get_file_info(path))

    def _try(self, action: Callable[[Any, str], T]) -> T:
        for pause in (*PAUSES_SECONDS, None):
            try:
                store, base = _open(self.root, os.getpid())
                return action(store, f"{base}/{self.relative}" if self.relative else base)
            except FileNotFoundError:
                raise
            except OSError as error:
                if pause is None:
                    of_machine = error.errno is not None and not is_of_file(error)
                    kind = UnreachableError if of_machine or _PASSING.search(str(error)) else UnreadableError
                    raise kind(
                        f"cannot read {self}: {_first_line(error)}; check address, credentials and network, and run "
                        "the same command again"
                    ) from None
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


AnyPath = Path | RemotePath
"""Where images are: on a disk that this machine sees, or in a store."""


def is_url(path: str | AnyPath) -> bool:
    """Whether ``path`` is text such as ``s3://bucket/prefix``."""
    return isinstance(path, str) and _URL.match(path) is not None


def locate(root: str | AnyPath) -> AnyPath:
    """A URL as a RemotePath; a local path, or its ``file://`` URL, as an absolute Path, ``~`` being home.

    Connects to nothing. Raises ConfigError for a URL that holds a password, and for one that says where or how its
    store is reached (``endpoint_override``): addresses are stored in catalogs, which come from anywhere.
    """
    if isinstance(root, RemotePath):
        return root
    if isinstance(root, Path) or not is_url(root):
        return from_home(root).absolute()
    try:
        parts = urlsplit(root)
    except ValueError as error:
        raise ConfigError(f"{root} is no address ({error}); expected a URL such as s3://bucket/prefix") from None
    if parts.password or "secret" in parts.query:
        raise ConfigError(
            f"the address {parts.scheme}://... holds a password, and would be written down with the results; "
            "give it in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    # Taken apart by nothing: another reader of the address could see other settings in it.
    settings = filter(None, root.partition("?")[2].split("&"))
    if strange := [setting for setting in settings if not _HARMLESS.fullmatch(setting)]:
        name, _, value = strange[0].partition("=")
        raise ConfigError(
            f"the address {root.partition('?')[0]} may not set {name}{f' to {value!r}' if name in _SETTINGS else ''}; "
            f"of a store, an address sets {', '.join(_SETTINGS)}, and your environment all else, such as "
            "AWS_ENDPOINT_URL"
        )
    if parts.scheme.lower() == "file":
        return Path(_open(root, os.getpid())[1])
    base, mark, query = root.partition("?")
    return RemotePath(re.sub(r"(?<=[^:/])/+$", "", base) + mark + query)


@cache
def _open(root: str, process: int) -> tuple[Any, str]:  # noqa: ARG001 - a forked process needs its own connections
    """The file system of ``root`` and the path of the root in it. Raises ConfigError for a URL that is none."""
    try:
        store, path = fs.FileSystem.from_uri(root)
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError(
            f"cannot open {root}: {_first_line(error)}; expected a folder, or a URL such as s3://bucket/prefix"
        ) from None
    if not path:
        raise ConfigError(f"{root} names no bucket; expected a URL such as s3://bucket/prefix")
    return store, path.rstrip("/") or "/"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
