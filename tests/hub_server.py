"""A small server that answers as the Hugging Face hub does, for tests of downloads."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = 2000  # bytes from which a file is kept apart (LFS) and named by its SHA-256


class HubServer:
    """A hub with the models in `repos`: id -> {file name: bytes}.

    Attributes
    ----------
    url
        What to give as `endpoint`.
    sent
        Bytes sent of each file, over all requests.
    ranges
        The `Range` headers that came.
    slow
        Seconds between two blocks of 4096 bytes.
    hang
        Whether it stops in the middle of a large file and says nothing more.
    breaks
        How many times it drops the connection in the middle of a large file.
    damage
        Whether it sends wrong bytes.
    refuse
        A status that it answers everything with, 0 for none.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.about: dict[str, dict[str, Any]] = {}
        self.sent: dict[str, int] = {}
        self.ranges: list[str] = []
        self.slow = 0.0
        self.hang = False
        self.breaks = 0
        self.damage = False
        self.refuse = 0
        self.knows_ranges = True
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self, body=True)

            def do_HEAD(self) -> None:
                server.answer(self, body=False)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, name: str, folder: Path, **about: Any) -> None:
        """Take in a folder as a model; `about` is what its card says."""
        self.repos[name] = {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }
        self.about[name] = about

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: Any, *, body: bool) -> None:
        path = request.path.partition("?")[0]
        if self.refuse:
            self._json(request, self.refuse, {"error": "refused"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", path):
            self._info(request, found[1])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(request, found[1], found[2], body)
        else:
            self._json(request, 404, {"error": "no such page"})

    def _info(self, request: Any, name: str) -> None:
        if name not in self.repos:
            request.error_code = "RepoNotFound"
            self._json(request, 404, {"error": "not found"}, "RepoNotFound")
            return
        siblings = []
        for file, content in self.repos[name].items():
            entry: dict[str, Any] = {
                "rfilename": file,
                "size": len(content),
                "blobId": _git_hash(content),
            }
            if len(content) >= _LARGE:
                entry["lfs"] = {
                    "size": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "pointerSize": 100,
                }
            siblings.append(entry)
        info = {"id": name, "sha": COMMIT, "siblings": siblings, "gated": False}
        self._json(request, 200, {**info, **self.about[name]})

    def _file(self, request: Any, name: str, file: str, body: bool) -> None:
        content = self.repos.get(name, {}).get(file)
        if content is None:
            self._json(request, 404, {"error": "no file"}, "EntryNotFound")
            return
        large = len(content) >= _LARGE
        etag = hashlib.sha256(content).hexdigest() if large else _git_hash(content)
        start = 0
        if asked := request.headers.get("Range"):
            self.ranges.append(asked)
            if self.knows_ranges:
                start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        request.send_response(206 if start else 200)
        request.send_header("ETag", f'"{etag}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        if body:
            self._send(request, file, content, start)

    def _send(self, request: Any, file: str, content: bytes, start: int) -> None:
        if self.damage and len(content) >= _LARGE:
            content = content[:-1] + bytes([content[-1] ^ 1])
        large = len(content) >= _LARGE
        stop = (start + len(content)) // 2
        for place in range(start, len(content), 4096):
            if large and place >= stop and self.breaks:
                self.breaks -= 1
                request.close_connection = True
                request.connection.close()
                return
            if large and place >= stop and self.hang:
                self.closing.wait(30)
                return
            block = content[place : place + 4096]
            try:
                request.wfile.write(block)
            except OSError:
                return
            self.sent[file] = self.sent.get(file, 0) + len(block)
            if self.slow and large:
                time.sleep(self.slow)

    def _json(self, request: Any, status: int, value: Any, code: str = "") -> None:
        content = json.dumps(value).encode()
        request.send_response(status)
        if code:
            request.send_header("X-Error-Code", code)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324
