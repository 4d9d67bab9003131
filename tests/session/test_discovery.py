"""Where sessions are found, and what is not believed."""

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from inspector.errors import InspectorError, UsageError
from inspector.session import discovery
from inspector.spec import OPTIONS, TargetSpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Not tmp_path itself: pytest's names are long, and a socket's path may have a hundred bytes.
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(tmp_path / "r"))
    return discovery.runtime_dir()


def record(session_id: str, started: float = 0.0) -> discovery.SessionRecord:
    return discovery.SessionRecord(
        id=session_id,
        pid=os.getpid(),
        model="demo",
        layers=(3,),
        hook="resid",
        device="cpu",
        started=started,
        program_version="0",
        protocol_version=1,
        state="ready",
        log="",
    )


def listen(session_id: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(discovery.socket_path(session_id)))
    listening.listen(8)
    return listening


def test_the_folder_is_private_and_closed_again_when_it_was_open(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert stat.S_IMODE(discovery.runtime_dir().stat().st_mode) == 0o700


def test_a_link_in_the_folders_place_is_refused(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short_path / "real").mkdir()
    (short_path / "link").symlink_to(short_path / "real")
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(short_path / "link"))
    with pytest.raises(InspectorError, match="not a directory of yours"):
        discovery.runtime_dir()


def test_a_folder_too_deep_for_a_socket_is_replaced_by_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90)
    monkeypatch.setenv("DM_INSPECT_RUNTIME_DIR", str(deep))
    short = discovery.runtime_dir()
    try:
        assert short != deep
        assert discovery.runtime_dir() == short  # found again
        with listen("0123456789ab-cdef"):
            connection = discovery.connect(discovery.socket_path("0123456789ab-cdef"))
            assert connection is not None
            connection.close()
    finally:
        for path in short.iterdir():
            path.unlink()
        short.rmdir()


def test_the_key_depends_on_what_is_loaded_and_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = TargetSpec(layers=(3,))
    key = discovery.session_key(target)
    assert len(key) == 12
    same = [replace(target, offline=True), replace(target, cache_dir="/x")]
    assert {discovery.session_key(other) for other in same} == {key}
    others = [
        replace(target, layers=(2,)),
        replace(target, widths=(256,)),
        replace(target, l0=8.0),
        replace(target, seed=1),
        replace(target, device="cpu"),
        replace(target, text="README.md"),
        replace(target, positions=(0, None)),
        replace(target, accept_gate=True),
    ]
    assert len({key, *(discovery.session_key(other) for other in others)}) == len(others) + 1
    # One model directory, named from two places.
    (tmp_path / "model").mkdir()
    absolute = discovery.session_key(replace(target, model=str(tmp_path / "model")))
    monkeypatch.chdir(tmp_path)
    assert discovery.session_key(replace(target, model="model")) == absolute


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_a_target_reaches_its_session(name: str) -> None:
    value = ("other",) if isinstance(getattr(TargetSpec(), name), tuple) else "other"
    other = discovery.session_key(replace(TargetSpec(), **{name: value}))  # type: ignore[arg-type]
    assert (other != discovery.session_key(TargetSpec())) == OPTIONS[name].of_session


def test_a_file_called_demo_does_not_shadow_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert discovery.resolved(TargetSpec(text="demo")) == TargetSpec(text="demo")


def test_live_sessions_are_listed_oldest_first_and_leftovers_removed(folder: Path) -> None:
    with listen("aaaa"), listen("bbbb"):
        discovery.write_record(record("aaaa", started=2.0))
        discovery.write_record(record("bbbb", started=1.0))
        listen("dead").close()
        discovery.write_record(record("dead"))
        discovery.write_record(record("gone"))  # a record alone
        assert [found.id for found in discovery.list_sessions()] == ["bbbb", "aaaa"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "aaaa.json",
        "aaaa.sock",
        "bbbb.json",
        "bbbb.sock",
        "lock",
    ]
    assert discovery.list_sessions() == []


def test_a_running_session_takes_the_name_of_another_target(folder: Path) -> None:
    target, other = TargetSpec(layers=(3,)), TargetSpec(layers=(2,))
    name, new = discovery.session_key(target), discovery.session_key(other)
    listening = listen(name)
    discovery.write_record(record(name))
    assert discovery.rename(name, other) == new
    assert [(each.id, each.layers) for each in discovery.list_sessions()] == [(new, (2,))]
    assert discovery.connect(discovery.socket_path(name)) is None
    taken = listen(name)
    with pytest.raises(UsageError, match="There is a session"):
        discovery.rename(new, target)
    assert discovery.rename(new, other) == new
    taken.close()
    listening.close()


def test_a_damaged_record_is_none(folder: Path) -> None:
    discovery.record_path("x").write_bytes(b"{]")
    assert discovery.read_record("x") is None
    assert discovery.read_record("y") is None


def test_finding_names_what_there_is(folder: Path) -> None:
    with pytest.raises(UsageError, match="none is running"):
        discovery.find_session(None)
    with listen("aaaa"):
        discovery.write_record(record("aaaa"))
        assert discovery.find_session(None).id == "aaaa"
        with pytest.raises(UsageError, match=r"no session 'aaab'\. Nearest: aaaa"):
            discovery.find_session("aaab")
        with listen("bbbb"):
            discovery.write_record(record("bbbb"))
            with pytest.raises(UsageError, match="2 sessions are running: aaaa, bbbb"):
                discovery.find_session(None)


def test_the_other_end_is_asked_who_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listen("aaaa"):
        connection = discovery.connect(discovery.socket_path("aaaa"))
        assert connection is not None
        with connection:
            assert discovery.same_user(connection)
            assert discovery.peer(connection) in ((os.getpid(), os.getuid()), None)
        other = os.getuid() + 1
        monkeypatch.setattr(discovery, "peer", lambda _: (1, other))
        assert discovery.connect(discovery.socket_path("aaaa")) is None
