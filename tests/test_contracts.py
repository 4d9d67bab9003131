"""What holds the house together: who imports what, what the wheel contains, and that it runs on its own.

Each check of imports is a process of its own, because this one has imported everything long ago.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from functools import cache
from pathlib import Path

import pytest

import inspector

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "transformers", "transformer_lens", "sae_lens", "datasets", "pyarrow", "scipy", "plotext")
SCREEN = ("textual", "click", "plotext")


def loaded_by(code: str, names: tuple[str, ...]) -> tuple[set[str], str]:
    """Which of the packages `names` are loaded after `code` ran in a fresh process, and what it wrote to stdout."""
    script = f"{code}\nimport sys\nsys.stderr.write(' '.join(sorted(set({names!r}) & set(sys.modules))))"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.split()), result.stdout


def command(*args: str) -> str:
    """Code that runs a command of the program as `dm-inspect` does, and goes on afterwards."""
    return (
        "from inspector.cli.failures import run_command\n"
        "from inspector.cli.main import dm_inspect\n"
        f"assert run_command(dm_inspect, {list(args)!r}, open_app=None) == 0"
    )


def modules_of(package: str) -> list[str]:
    """Every module of a package, by its dotted name; nothing is imported to find out."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    paths = spec.submodule_search_locations
    return [package, *(found.name for found in pkgutil.walk_packages(paths, f"{package}."))]


@pytest.mark.parametrize(
    "args", [("--help",), ("run", "--help"), ("experiments",), ("experiments", "--json")], ids=" ".join
)
def test_help_and_the_list_of_experiments_load_nothing_heavy(args: tuple[str, ...]) -> None:
    loaded, out = loaded_by(command(*args), (*HEAVY, "textual", "rich"))
    assert loaded == set()
    assert out != ""


def test_every_help_loads_nothing_heavy() -> None:
    from inspector.cli.main import COMMANDS

    code = "\n".join(command(name, "--help") for name in COMMANDS)
    assert loaded_by(code, (*HEAVY, "textual"))[0] == set()


def test_importing_the_package_loads_nothing_at_all() -> None:
    assert loaded_by("import inspector", (*HEAVY, *SCREEN, "rich", "msgspec"))[0] == set()


@cache
def painting_modules() -> tuple[str, ...]:
    modules = [*modules_of("inspector.tui"), *modules_of("inspector.drawing")]
    modules += ["inspector.session.client", "inspector.session.protocol", "inspector.spec", "inspector.errors"]
    return tuple(name for name in modules if not name.endswith("__main__"))


def test_the_process_that_paints_loads_no_tensors_and_no_plots() -> None:
    code = "\n".join(f"import {name}" for name in painting_modules())
    assert loaded_by(code, HEAVY)[0] == set()


def test_what_computes_loads_no_screen() -> None:
    packages = ("engine", "statistics", "sources", "experiments")
    names = [name for package in packages for name in modules_of(f"inspector.{package}")]
    code = "\n".join(f"import {name}" for name in [*names, "inspector.runner"])
    assert loaded_by(code, ("textual", "click"))[0] == set()


def test_nothing_reads_or_writes_pickle() -> None:
    """torch.load and torch.save are pickle too; one published layout is read with the reader that runs no code."""
    allowed = {"inspector/formats/weights.py": 'torch.load(path, map_location="cpu", weights_only=True, '}
    forbidden = ("import pickle", "from pickle", "torch.load(", "torch.save(", "import dill", "import joblib")
    guilty = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in sorted((ROOT / "inspector").rglob("*.py"))
        for word in forbidden
        if word in path.read_text(encoding="utf-8").replace(allowed.get(str(path.relative_to(ROOT)), "\0"), "")
    ]
    assert guilty == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without network."""
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return Path(built)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"dm_inspect-{inspector.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"inspector", info}
    assert {name for name in names if name.startswith("inspector/themes/")} == {
        f"inspector/themes/{path.name}" for path in (ROOT / "themes").glob("*.toml")
    }
    assert f"{info}/licenses/LICENSE" in names
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert entry_points == "[console_scripts]\ndm-inspect = inspector.__main__:main\n"


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "inspector"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    with zipfile.ZipFile(wheel) as archive:
        missing = set(tracked) - set(archive.namelist())
    assert missing == set()


def test_the_wheel_installs_into_an_empty_environment_and_runs(wheel: Path, tmp_path: Path) -> None:
    """Outside the checkout, through the console script, with the run-time dependencies alone in reach."""
    environment = tmp_path / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, stderr=subprocess.DEVNULL)
    # Dependencies are borrowed from the running environment. The checkout's own editable install is not: .pth files
    # inside a folder that a .pth file adds are not read.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(program: str, *args: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [str(environment / "bin" / program), *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=variables,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    code, out, _err = run("python", "-c", "import inspector; print(inspector.__file__)")
    assert (code, Path(out).is_relative_to(environment)) == (0, True)
    assert run("dm-inspect", "--version") == (0, f"dm-inspect {inspector.__version__}\n", "")
    code, out, err = run("dm-inspect", "--help")
    assert (code, err) == (0, "")
    assert out.startswith("Usage: dm-inspect ")
    code, out, err = run("dm-inspect", "experiments", "--json")
    assert (code, err) == (0, "")
    assert {"norm-prediction", "error-vector", "fvu-nonlinear"} <= {row["id"] for row in json.loads(out)["experiments"]}


def test_constraints_pin_every_dependency_exactly() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    names = {line.split(">")[0].split("=")[0].split("<")[0].strip() for line in wanted}
    assert names - set(pins) == set()
    assert pins["torch"] == "2.13.0"
