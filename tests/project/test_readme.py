"""What the README says can be typed: commands and options exist, the pipeline is valid."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cdc.cli.root import COMMANDS
from cdc.config import parse_pipeline

README = Path("README.md").read_text("utf-8")
SPANS = re.findall(r"`(cdc [^`]+)`", README) + re.findall(r"^(cdc [^#\n]+)", README, re.MULTILINE)


def parts(span: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the command's words and its options."""
    words = shlex.split(span)[1:]
    command = [words[0]]
    if words[0] in {"dead", "local", "map", "position", "schema"} and len(words) > 1:
        command.append(words[1].partition("|")[0])
    if words[:2] == ["sink", "rewind"]:
        command.append("rewind")
    return tuple(command), [word for word in words if word.startswith("--")]


@pytest.mark.parametrize("span", sorted(set(SPANS)))
def test_a_command_in_the_readme_exists_with_its_options(span: str) -> None:
    command, options = parts(span)
    assert command[0] in COMMANDS
    done = subprocess.run(
        [sys.executable, "-m", "cdc", *command, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for option in options:
        assert option in done.stdout


URLS = {"SHOPDB_URL": "postgresql://u@127.0.0.1/shop", "CRM_URL": "postgresql://u@127.0.0.1/crm"}


def test_the_pipeline_in_the_readme_is_valid() -> None:
    found = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert found is not None
    pipeline = parse_pipeline(found[1], Path("README.md"), URLS)
    assert list(pipeline.sources) == ["shopdb"]
    assert list(pipeline.sinks) == ["crm"]


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", Path("Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets


def test_every_page_the_readme_links_to_exists() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert Path(link).exists(), link


PLATFORMS = {
    "linux-x86_64": "Linux x86-64",
    "linux-arm64": "Linux\narm64",
    "darwin-x86_64": "macOS",
    "darwin-arm64": "macOS",
}


def test_the_readme_names_every_platform_that_has_parts() -> None:
    parts = Path("cdc/local/parts.toml").read_text("utf-8")
    found = set(re.findall(r'^platform = "(.+)"', parts, re.MULTILINE))
    assert found <= PLATFORMS.keys()
    tested = README.partition("## What is tested")[2]
    for platform in found:
        assert PLATFORMS[platform] in tested
