"""Which text is held out, and that training never sees it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.errors import DataError
from inspector.sources import python_text
from inspector.sources.python_text import (
    demo_documents,
    is_held_out,
    read_topics,
    shared_lines,
    stdlib_root,
    training_documents,
)

LINES = [f"value_{i} = compute_something_specific({i}, option={i * 7})" for i in range(40)]


def held_out_name(n: int = 0, *, held_out: bool = True) -> str:
    """The n-th name module_I.py that is (or is not) held out."""
    names = (f"module_{i}.py" for i in range(1000))
    return [name for name in names if is_held_out(name) is held_out][n]


def library(root: Path) -> Path:
    """A small standard library: two held-out files, two others, topics, tests and an installed package."""
    files = {
        "os.py": "# the operating system\n",
        held_out_name(0): "\n".join(LINES),
        held_out_name(1): "held = 'second'\n",
        held_out_name(0, held_out=False): "seen = 'first'\n",
        "pydoc_data/topics.py": "topics = {'assert': 'The assert statement\\n', 'if': 'The if ' 'statement'}\n",
        "test/" + held_out_name(2): "test = 'tests are never held out'\n",
        "site-packages/installed.py": "installed = True\n",
        "__pycache__/cached.py": "cached = True\n",
        **{f"encodings/table_{i}.py": f"table = {i}\n" for i in range(20)},
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / held_out_name(3)).write_bytes(b"# \xff\xfe not UTF-8\n")
    return root


def test_held_out_is_a_fixed_quarter_of_paths() -> None:
    """These names are part of the contract: were they to move, the shipped model would have seen the demo's text."""
    held_out = ["json/decoder.py", "json/encoder.py", "subprocess.py", "enum.py", "calendar.py", "traceback.py"]
    assert all(map(is_held_out, held_out))
    assert not any(map(is_held_out, ["heapq.py", "ast.py", "abc.py", "argparse.py", "functools.py", "typing.py"]))
    share = sum(is_held_out(f"package/module_{i}.py") for i in range(4000)) / 4000
    # Binomial with p = 1/4 and n = 4000: standard deviation 0.007.
    assert share == pytest.approx(0.25, abs=0.028)


def test_reference_is_held_out_and_tests_are_not() -> None:
    assert is_held_out("pydoc_data/topics.py")
    assert is_held_out("pydoc_data/__init__.py")
    assert not any(is_held_out(f"test/test_{i}.py") or is_held_out(f"pkg/tests/{i}.py") for i in range(200))


def test_demo_documents_are_held_out_sources_and_topics_in_hash_order(tmp_path: Path) -> None:
    names = [name for name, _ in demo_documents(library(tmp_path))]
    assert set(names) == {held_out_name(0), held_out_name(1), "topic:assert", "topic:if"}
    assert names == sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert dict(demo_documents(tmp_path))["topic:if"] == "The if statement"


def test_training_never_sees_held_out_tests_excepted(tmp_path: Path) -> None:
    root = library(tmp_path)
    names = {name for name, _ in training_documents([root])}
    tables = {name for name in names if name.startswith("encodings/")}
    assert 0 < len(tables) < 20
    assert names - tables == {"os.py", held_out_name(0, held_out=False), "test/" + held_out_name(2)}
    assert names.isdisjoint(name for name, _ in demo_documents(root))


def test_training_drops_duplicates_and_vendored_copies(tmp_path: Path) -> None:
    root = library(tmp_path / "lib")
    packages = tmp_path / "packages"
    packages.mkdir()
    own = [f"own_line_number_{i} = something_else_entirely({i})" for i in range(100)]
    (packages / "vendored.py").write_text("\n".join([*own[:30], *LINES]))
    (packages / "quotes_a_little.py").write_text("\n".join([*own, *LINES[:5]]))
    (packages / "copy.py").write_text("\n".join([*own, *LINES[:5]]))
    (packages / "data.csv").write_text("1,2\n")
    names = [name for name, _ in training_documents([root, packages])]
    assert [name for name in names if name in {"vendored.py", "quotes_a_little.py", "copy.py", "data.csv"}] == [
        "copy.py"
    ]


def test_shared_lines_counts_long_lines_only() -> None:
    assert shared_lines("\n".join([*LINES[:3], "short = 1", LINES[3] + "  # changed"]), set(LINES)) == 0.75
    assert shared_lines("a\nb\n", {"a", "b"}) == 0.0


def test_topics_are_parsed_and_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "topics.py"
    path.write_text("raise SystemExit('executed')\ntopics = {'b': 'B', 'a': 'A'}\n")
    assert read_topics(path) == {"a": "A", "b": "B"}
    assert read_topics(tmp_path / "missing.py") == {}
    path.write_text("topics = {'a': exit()}\n")
    assert read_topics(path) == {}


def test_a_folder_without_text_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no readable standard-library text. Use --text FILE"):
        list(demo_documents(tmp_path))


def test_long_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = library(tmp_path)
    monkeypatch.setattr(python_text, "MAX_DOCUMENT_BYTES", 100)
    assert held_out_name(0) not in dict(demo_documents(root))
    assert "topic:if" in dict(demo_documents(root))


def test_the_running_python_has_enough_for_the_demo() -> None:
    documents = list(demo_documents())
    assert sum(len(text) for _, text in documents) > 1_000_000
    assert sum(name.startswith("topic:") for name, _ in documents) > 50
    assert all(is_held_out(name) and (stdlib_root() / name).exists() for name, _ in documents if ":" not in name)


def test_reading_text_imports_no_torch() -> None:
    program = (
        "import sys; from inspector.sources.python_text import demo_documents; next(demo_documents());"
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
