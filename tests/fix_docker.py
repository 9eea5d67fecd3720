"""What docker/ holds, read once, for the tests that hold it to its word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())


def check_schema(name: str, path: Path) -> None:
    """Hold a file against one of the schemas that check-jsonschema brings."""
    program = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [program, "--builtin-schema", name, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def pipeline_at(path: Path, folder: Path) -> Path:
    """Write a pipeline file whose secrets are files in `folder`, all of them "x"."""
    text = path.read_text()
    for name in re.findall(r"\$\{file:/run/secrets/([\w/]+)\}", text):
        secret = folder / name
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("x\n")
    written = folder / "pipeline.yaml"
    written.write_text(text.replace("/run/secrets/", f"{folder}/"))
    return written
