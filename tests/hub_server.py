"""A Hugging Face hub on the loopback interface, with the faults that a real one has.

Speaks what huggingface_hub asks: HEAD and GET of /REPO/resolve/REVISION/FILE with ETag, commit and size, a redirect to
another place for large files, ranges, and the listing of a repository. And what `datasets` asks to stream a data set:
the same below /datasets, what a repository is, what some of its paths are, and a server of prepared data sets, which
this hub has not.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.loopback import serving

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
LARGE = 4096
"""Bytes from which a file is redirected, as the hub does with its large ones."""


_REPO = r"((?:datasets/)?[^/]+/[^/]+)"
_API_REPO = r"(models|datasets)/([^/]+/[^/]+)"


@dataclass
class Hub:
    """Files by repository, and what goes wrong. A data set's repository begins with `datasets/`, as in its address."""

    files: dict[str, dict[str, Path]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    failing: dict[str, int] = field(default_factory=dict)
    """By file: how many times it is answered `fail_status` before it is given."""
    fail_status: int = 503
    retry_after: str | None = None
    cut: dict[str, int] = field(default_factory=dict)
    """By file: how many times its body breaks off half-way."""
    wrong_size: set[str] = field(default_factory=set)
    """Files whose body is shorter than their head says, every time."""
    tag: dict[str, str] = field(default_factory=dict)
    """By file: what its content is said to be called, instead of its hash."""
    commit: str = COMMIT
    """What the newest commit is said to be."""
    says: dict[str, int] = field(default_factory=dict)
    """By file: how large it is said to be; its body is as it is."""
    endless: set[str] = field(default_factory=set)
    """Files whose body has no end, from its first byte; sent without a length."""
    trickling: set[str] = field(default_factory=set)
    """Files of whose body a byte comes every twentieth of a second, without an end."""
    packed: set[str] = field(default_factory=set)
    """Files whose body comes as gzip though nobody asked for it."""
    sent: int = 0
    """Bytes of endless bodies."""
    hold: dict[str, int] = field(default_factory=dict)
    """By file: after so many bytes of its body 64 kB come each second, until `released` is set."""
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, range) of every request."""
    tokens: list[str] = field(default_factory=list)
    """Authorization headers that came."""
    url: str = ""

    def publish(self, repo: str, folder: Path) -> None:
        """Every file at or below a folder."""
        self.files[repo] = {
            path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
        }


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A running hub; its address is in `url`, to be given as HF_ENDPOINT."""
    hub = Hub()
    with serving(_handler(hub)) as hub.url:
        try:
            yield hub
        finally:
            hub.released.set()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_POST(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = urllib.parse.unquote(self.path.partition("?")[0])
            hub.asked.append((self.command, path, self.headers.get("Range")))
            if (token := self.headers.get("Authorization")) is not None:
                hub.tokens.append(token)
            if match := re.fullmatch(rf"/api/{_API_REPO}/tree/[^/]+(?:/(.*))?", path):
                self._list(_repo(match), match[3])
            elif match := re.fullmatch(rf"/api/{_API_REPO}/paths-info/[^/]+", path):
                self._paths(_repo(match))
            elif match := re.fullmatch(rf"/api/{_API_REPO}(?:/revision/[^/]+)?", path):
                self._about(_repo(match))
            elif match := re.fullmatch(rf"/{_REPO}/resolve/[^/]+/(.+)", path):
                self._resolve(match[1], match[2], body)
            elif match := re.fullmatch(rf"/large/{_REPO}/(.+)", path):
                self._send(match[1], match[2], body)
            else:
                self._error(404, "EntryNotFound")

        def _known(self, repo: str) -> bool:
            if repo in hub.gated:
                self._error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            elif repo not in hub.files:
                self._error(401, "RepoNotFound")
            else:
                return True
            return False

        def _list(self, repo: str, below: str | None) -> None:
            if not self._known(repo):
                return
            folder = f"{below.rstrip('/')}/" if below else ""
            names = [name for name in hub.files[repo] if name.startswith(folder)]
            if folder and not names:
                self._error(404, "EntryNotFound")
                return
            wanted = urllib.parse.parse_qs(self.path.partition("?")[2]).get("recursive", ["false"])[0]
            inside = [name for name in names if wanted.lower() in ("true", "1") or "/" not in name[len(folder) :]]
            above = {folder + name[len(folder) :].split("/")[0] for name in names if "/" in name[len(folder) :]}
            tree = [{"type": "directory", "path": name, "size": 0, "oid": COMMIT} for name in sorted(above)]
            self._json(tree + [_entry(name, hub.files[repo][name]) for name in inside])

        def _paths(self, repo: str) -> None:
            asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            if not self._known(repo):
                return
            form = json.loads(asked) if asked.startswith("{") else urllib.parse.parse_qs(asked)
            found: list[dict[str, Any]] = []
            for wanted in form.get("paths", []):
                if wanted in hub.files[repo]:
                    found.append(_entry(wanted, hub.files[repo][wanted]))
                elif any(name.startswith(f"{wanted}/") for name in hub.files[repo]):
                    found.append({"type": "directory", "path": wanted, "size": 0, "oid": COMMIT})
            self._json(found)

        def _about(self, repo: str) -> None:
            if self._known(repo):
                siblings = [{"rfilename": name} for name in hub.files[repo]]
                self._json({"id": repo.removeprefix("datasets/"), "sha": COMMIT, "siblings": siblings})

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(data))})
            self.wfile.write(data)

        def _resolve(self, repo: str, name: str, body: bool) -> None:
            if not self._known(repo):
                return
            path = hub.files[repo].get(name)
            if path is None:
                self._error(404, "EntryNotFound", {"X-Repo-Commit": COMMIT})
                return
            if hub.failing.get(name, 0) > 0:
                hub.failing[name] -= 1
                self._error(hub.fail_status, None, {"Retry-After": hub.retry_after} if hub.retry_after else {})
                return
            if hub.says.get(name, path.stat().st_size) < LARGE:
                self._send(repo, name, body)
                return
            self._head(
                302,
                {
                    "Location": f"{hub.url}/large/{repo}/{name}",
                    "X-Repo-Commit": hub.commit,
                    "X-Linked-Etag": f'"{hub.tag.get(name) or _etag(path)}"',
                    "X-Linked-Size": str(hub.says.get(name, path.stat().st_size)),
                    "Content-Length": "0",
                },
            )

        def _send(self, repo: str, name: str, body: bool) -> None:
            path = hub.files[repo][name]
            data, status, start = path.read_bytes(), 200, 0
            tag = hub.tag.get(name) or _etag(path)
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": hub.commit, "Accept-Ranges": "bytes"}
            if body and name in hub.endless | hub.trickling:
                self._send_for_ever(headers, 1 if name in hub.trickling else 1 << 16)
                return
            if body and name in hub.packed:
                data = gzip.compress(data)
                headers["Content-Encoding"] = "gzip"
            last = len(data) - 1
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
                start, status = int(match[1]), 206
                last = min(last, int(match[2])) if match[2] else last
                headers["Content-Range"] = f"bytes {start}-{last}/{len(data)}"
            rest = data[start : last + 1]
            length = len(rest) if body else hub.says.get(name, len(rest))
            self._head(status, headers | {"Content-Length": str(length)})
            if not body:
                return
            stop = len(rest)
            if name in hub.wrong_size or (start == 0 and hub.cut.get(name, 0) > 0):
                hub.cut[name] = hub.cut.get(name, 1) - 1
                stop //= 2
            for first in range(0, stop, 1 << 16):
                if start + first >= hub.hold.get(name, len(data)):
                    self.wfile.flush()
                    hub.released.wait(1.0)  # silence would be a broken connection to the client, and it would try again
                self.wfile.write(rest[first : min(stop, first + (1 << 16))])
            if stop < len(rest):
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()

        def _send_for_ever(self, headers: dict[str, str], n_bytes: int) -> None:
            self._head(200, headers | {"Connection": "close"})
            self.close_connection = True
            with contextlib.suppress(OSError):  # until the other end has gone
                while True:
                    self.wfile.write(bytes(n_bytes))
                    hub.sent += n_bytes
                    if n_bytes == 1:
                        time.sleep(0.05)

        def _error(self, status: int, code: str | None, headers: dict[str, str] | None = None) -> None:
            more = {"X-Error-Code": code} if code else {}
            self._head(status, {"Content-Length": "0", **more, **(headers or {})})

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


def _etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _repo(match: re.Match[str]) -> str:
    """The key in Hub.files of what an address of the API names."""
    return match[2] if match[1] == "models" else f"datasets/{match[2]}"


def _entry(name: str, path: Path) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
