"""What a user installs: the wheel, in an empty environment, away from the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tree import PACKAGES, ROOT, files

UV = Path(sys.executable).with_name("uv")


def run(*argv: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what a clone holds, so that nothing lying about gets in."""
    folder = tmp_path_factory.mktemp("clone")
    for path in files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", ".", cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_everything_that_is_not_python(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    kinds = {".md", ".toml", ".typed", ".py", ".pyi", ".pyx"}
    ours = {str(path) for path in files() if path.parts[0] in PACKAGES and path.suffix in kinds}
    assert ours <= held
    assert {f"{package}/py.typed" for package in PACKAGES} <= held
    assert not {name for name in held if name.startswith(("tests/", "docker/"))}


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    lock = ROOT / "requirements.lock"
    with_extras = f"{wheel}[postgres,local]"
    run(
        UV, "pip", "install", "--quiet", "--python", python, "--constraint", lock, with_extras,
        cwd=tmp_path,
    )  # fmt: skip
    shown = run(
        python,
        "-I",
        "-c",
        "import cdc.local.parts, schemas, sinks; print(len(cdc.local.parts.kafka_parts()))",
        cwd=tmp_path,
    )
    assert int(shown) > 40
    assert "Usage" in run(tmp_path / "env" / "bin" / "cdc", "--help", cwd=tmp_path)
