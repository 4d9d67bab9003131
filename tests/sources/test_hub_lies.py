"""A hub that lies: about names, sizes and ends. Nothing is written outside the cache, and nothing without bound."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.hub_server import Hub
from tests.sources.test_hub import error_of, fetch, hub, run

__all__ = ["hub"]
SMALL, LARGE = "config.json", "layer_1/params.npz"


def files_outside(tmp_path: Path) -> set[Path]:
    """All but what the hub publishes, and the folder of the repository in the cache."""
    inside = (tmp_path / "published", tmp_path / "cache" / "models--google--some")
    return {
        path.relative_to(tmp_path)
        for path in tmp_path.rglob("*")
        if path.is_file() and not any(path.is_relative_to(folder) for folder in inside)
    }


@pytest.mark.parametrize(
    ("file", "tag"),
    [(SMALL, "../../../x"), *((LARGE, tag) for tag in ("../../../x", "/{tmp}/x", "..", "a\\..\\b", "x" * 300))],
)
def test_the_name_of_a_content_never_becomes_a_path_elsewhere(tmp_path: Path, hub: Hub, file: str, tag: str) -> None:
    hub.tag[file] = tag.format(tmp=tmp_path)
    error = error_of(fetch(tmp_path, hub, [file]))
    assert error.startswith("The hub names a content by something that is no name, of google/some.")
    assert files_outside(tmp_path) <= {Path("cache/.dm-inspect/lock")}
    assert not list((tmp_path / "cache").rglob("x*"))


@pytest.mark.parametrize("commit", ["../../../x", "main", ""])
def test_the_name_of_a_commit_never_becomes_a_path_elsewhere(tmp_path: Path, hub: Hub, commit: str) -> None:
    hub.commit = commit.format(tmp=tmp_path)
    error = error_of(fetch(tmp_path, hub, [SMALL]))
    assert error.startswith("The hub names a commit by something that is no commit, of google/some.")
    assert files_outside(tmp_path) <= {Path("cache/.dm-inspect/lock")}


@pytest.mark.parametrize("file", ["../x", "/etc/x", "a/../../x"])
def test_a_file_that_leaves_its_repository_is_not_fetched(tmp_path: Path, hub: Hub, file: str) -> None:
    assert "is no file within google/some" in error_of(fetch(tmp_path, hub, [file]))
    assert hub.asked == []


def test_listed_names_that_leave_the_repository_are_left_out(tmp_path: Path, hub: Hub) -> None:
    for name in (SMALL, "model.safetensors", "../../model-1.safetensors", "..", "a\x1b.safetensors"):
        hub.files["google/some"][name] = tmp_path / "published" / SMALL
    got = run(tmp_path, hub, "fetch_model", "google/some")
    assert got["error"] is None
    assert sorted(path.name for path in Path(got["result"]).iterdir()) == [SMALL, "model.safetensors"]


@pytest.mark.parametrize("file", [SMALL, LARGE])
def test_no_more_is_taken_than_was_announced(tmp_path: Path, hub: Hub, file: str) -> None:
    """What is on its way when the client leaves is in the buffers of two sockets, a few megabytes at most."""
    hub.endless.add(file)
    error = error_of(fetch(tmp_path, hub, [file]))
    assert error.startswith("The hub sends more of a file than it announced, of google/some. Nothing of it was kept")
    assert hub.sent < 64_000_000
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()) == 0


@pytest.mark.parametrize("file", [SMALL, LARGE])
def test_what_comes_packed_is_not_unpacked(tmp_path: Path, hub: Hub, file: str) -> None:
    hub.packed.add(file)
    assert error_of(fetch(tmp_path, hub, [file])).startswith("The hub sends a file packed, though asked not to")


def test_another_content_of_the_same_size_is_not_kept(tmp_path: Path, hub: Hub) -> None:
    hub.tag[LARGE] = "0" * 64
    assert error_of(fetch(tmp_path, hub, [LARGE])).startswith("The hub sends something else than it announced")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]


def test_less_than_announced_is_not_kept(tmp_path: Path, hub: Hub) -> None:
    hub.says[SMALL] = 25
    hub.tag[SMALL] = "a" * 40
    error = error_of(fetch(tmp_path, hub, [SMALL]))
    assert error.startswith("The hub sends less of a file than it announced")


def test_more_than_there_is_room_for_is_not_begun(tmp_path: Path, hub: Hub) -> None:
    hub.says[LARGE] = 10**14
    got = fetch(tmp_path, hub, [LARGE])
    assert got["code"] == 5 and "disk is full" in got["error"]
    assert not [method for method, *_ in hub.asked if method == "GET"]


def test_a_hub_that_trickles_is_left_and_what_came_is_kept(tmp_path: Path, hub: Hub) -> None:
    """However busy the machine is, a byte in a twentieth of a second or more stays below the rate."""
    hub.trickling.add(LARGE)
    error = error_of(fetch(tmp_path, hub, [LARGE], settings={"SLOW_SECONDS": 0.2}))
    assert error.startswith("The hub sends next to nothing of google/some. What has arrived is kept")
    (part,) = (tmp_path / "cache").rglob("*.part")
    assert part.stat().st_size > 0


def test_a_list_without_an_end_is_left(tmp_path: Path, hub: Hub) -> None:
    for number in range(20):
        hub.files["google/some"][f"{number}.bin"] = tmp_path / "published" / SMALL
    error = error_of(run(tmp_path, hub, "fetch_model", "google/some", settings={"LISTING_BYTES": 100}))
    assert error.startswith("The hub lists files without end, of google/some.")


def test_parts_of_an_older_try_that_do_not_fit_are_fetched_again(tmp_path: Path, hub: Hub) -> None:
    """The disk's fault, not the hub's."""
    raw = hub.files["google/some"][LARGE].read_bytes()
    blobs = tmp_path / "cache" / "models--google--some" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(raw).hexdigest()}.part").write_bytes(bytes(1000))
    got = fetch(tmp_path, hub, [LARGE])
    assert Path(got["result"][LARGE]).read_bytes() == raw
    assert [wanted for method, path, wanted in hub.asked if method == "GET" and path.startswith("/large")] == [
        "bytes=1000-",
        None,
    ]
