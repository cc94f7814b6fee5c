"""Fetch one file of a hub model: resumed where it stopped, checked, cancelled at once.

The hub's own client takes a stopped file from its beginning and notices a cancel every
10 MB only. Here the bytes wait beside their place in the hub's cache, under the hash
that the hub gives for the whole file.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import get_session
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from napari_ovam.base.waiting import wait_for
from napari_ovam.hub.families import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_ATTEMPTS = 6  # without a byte between them
# Seconds without a byte until it is asked again. A cancelled transfer of a server that
# hangs holds its file for so long, not its caller.
_TIMEOUT = 5.0
_BLOCK = 1 << 20

T = TypeVar("T")


class DamagedFileError(ModelError):
    """A file that arrived with other bytes than the hub has."""


def patiently(work: Callable[[], T], look: Callable[[], None]) -> T:
    """Return what `work` returns, which may wait for a server in a thread of its own.

    Parameters
    ----------
    work
        Its errors are raised here.
    look
        Called about ten times a second in this thread. It may raise, such as
        `Cancelled`, and does not wait for `work` then.
    """
    return wait_for(work, "the hub", progress=lambda *_: look())


def part_path(target: Path) -> Path:
    """Return where the bytes of a file wait until it is whole."""
    return target.with_name(f"{target.name}.ovam.incomplete")


def fetch(
    url: str,
    target: Path,
    *,
    lock: Path,
    size: int,
    headers: Mapping[str, str],
    report: Callable[[int], None],
) -> None:
    """Fetch a file into `target`, whose name is the hash that the hub gives.

    It raises `DamagedFileError` if its hash is another one; nothing of it is kept;
    `OSError` if it cannot be written, or the server does not answer.

    Parameters
    ----------
    url
        Of the file at one commit: its content never changes.
    target
        Where it goes when it is whole and its hash is right.
    lock
        What other processes that fetch it hold; they wait until it is whole.
    size
        Bytes.
    headers
        Of the request, such as the authorisation.
    report
        Called about ten times a second with the bytes that are here, in this thread.
        It may raise to end the transfer; what arrived is kept for the next time.
    """
    worker = _Transfer(url, target, lock, size, headers)
    try:
        patiently(worker.run, lambda: report(worker.done))
    finally:
        worker.stop()
    report(size)


class _Transfer:
    """The part of a transfer that may wait for a server, in a thread of its own."""

    def __init__(
        self,
        url: str,
        target: Path,
        lock: Path,
        size: int,
        headers: Mapping[str, str],
    ) -> None:
        self.url, self.target, self.lock, self.size = url, target, lock, size
        self.headers = headers
        self.part = part_path(target)
        self.done = 0
        self._stopped = False
        # Nothing is written after `stop`: another transfer may go on with the file.
        self._writing = threading.Lock()

    def stop(self) -> None:
        with self._writing:
            self._stopped = True

    def run(self) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(self.lock):
            if not self._stopped and not self.target.exists():
                self._fetch()

    def _fetch(self) -> None:
        failures = 0
        while (have := self._have()) < self.size and not self._stopped:
            self.done = have
            try:
                self._receive(have)
            except Exception as error:
                if self._stopped:
                    return
                failures = failures + 1 if self._have() == have else 1
                status = getattr(getattr(error, "response", None), "status_code", 500)
                if failures >= _ATTEMPTS or status < 500 or _is_local(error):
                    raise
                time.sleep(0.5 * failures)
        self._finish()

    def _have(self) -> int:
        try:
            have = self.part.stat().st_size
        except FileNotFoundError:
            return 0
        if have > self.size:
            self.part.unlink()
            return 0
        return have

    def _receive(self, have: int) -> None:
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with get_session().stream(
            "GET", self.url, headers=headers, timeout=_TIMEOUT, follow_redirects=True
        ) as response:
            response.raise_for_status()
            # A server that knows no ranges sends the whole file.
            mode = "ab" if have and response.status_code == 206 else "wb"
            with self.part.open(mode) as file:
                self.done = file.tell()
                for block in response.iter_raw():
                    with self._writing:
                        if self._stopped:
                            return
                        file.write(block)
                        self.done += len(block)
        if self._have() < self.size:
            raise ConnectionError(f"{self.url} ended after {self._have()} bytes")

    def _finish(self) -> None:
        """Check the hash and move the file to its place."""
        if self._stopped:
            return
        self.part.touch()  # an empty file is a whole one
        name, digest = self.target.name, _digest(self.target.name, self.size)
        if digest is not None:
            with self.part.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    if self._stopped:
                        return
            if digest.hexdigest() != name:
                self.part.unlink()
                raise DamagedFileError(
                    f"{self.url} arrived damaged (its hash is not {name}): get it again"
                )
        with self._writing:
            if not self._stopped:
                self.part.replace(self.target)


def _digest(name: str, size: int) -> Any:
    """Return the hash that a file is named by: SHA-256 of large files, else git's."""
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return hashlib.sha256()
    if re.fullmatch(r"[0-9a-f]{40}", name):
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return None


def _is_local(error: Exception) -> bool:
    """Tell a failure of this machine's disk from one of the network."""
    return isinstance(error, OSError) and not isinstance(error, ConnectionError)
