"""What must not be in the repository at all."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tree import PACKAGES, ROOT, files, parsed, python_files, read

# Spelled with a gap, so that this file does not name them either.
HOSTS = [
    name.replace("~", "")
    for name in (
        "py~pi.org",
        "python~hosted.org",
        "maven~.org",
        "maven.~apache.org",
        "npm~js.org",
        "crates~.io",
        "debian~.org",
        "golang~.org",
    )
]
# A path of somebody's machine: of a checkout, a home or a temporary folder of a session.
MACHINE_PATHS = re.compile(r"(?<![\w.}$*-])/(?:root|work|home/\w+|Users/\w+|tmp/bash_jobs)(?:/|\b)")
UNFINISHED = re.compile(r"\b(?:TO(?=DO)DO|FIX(?=ME)ME|XX(?=X)X|HA(?=CK)CK)\b")

# (path, reason) of what may name such a thing.
EXEMPT: dict[str, str] = {}


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path in files()
        if str(path) not in EXEMPT
        for number, line in enumerate(read(path).splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_package_registry_is_named() -> None:
    assert lines_with(re.compile("|".join(map(re.escape, HOSTS)))) == []


def test_no_path_of_a_machine_is_named() -> None:
    assert lines_with(MACHINE_PATHS) == []


def test_nothing_is_left_for_later_in_a_comment() -> None:
    assert lines_with(UNFINISHED) == []


def test_the_lock_has_a_hash_for_everything_and_no_address() -> None:
    lock = read(Path("requirements.lock"))
    assert "://" not in lock
    pinned = re.findall(r"^[a-z0-9][\w.-]*==\S+.*\\$", lock, re.MULTILINE)
    assert pinned == re.findall(r"^[a-z0-9].*$", lock, re.MULTILINE)


def test_the_package_versions_agree() -> None:
    assert 'version = "0.1.0"' in read(Path("pyproject.toml"))


def test_ci_runs_make_test_and_is_executable() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "make test" in read(Path(".ci/run"))


def test_no_shared_folder_is_read() -> None:
    outside = [
        place
        for place in lines_with(re.compile(r"\.\./shared|/shared/"))
        if Path(place.split(":")[0]).suffix in {".py", ".pyx", ".toml", ".yaml"}
        and not place.startswith("tests/project/")
    ]
    assert outside == []


def nodes(paths: list[Path], wrong: Callable[[ast.AST], bool]) -> Iterator[str]:
    for path in paths:
        for node in ast.walk(parsed(path)):
            if wrong(node):
                yield f"{path}:{getattr(node, 'lineno', 0)}"


def dotted(node: ast.AST) -> str:
    """`pytest.mark.skip` of the expression that says it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    ways = {"skip", "skipif", "xfail", "importorskip", "skipTest", "SkipTest"}

    def skips(node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and node.attr in ways

    assert list(nodes(python_files("tests"), skips)) == []


def test_no_error_is_swallowed_without_a_word() -> None:
    def swallows(node: ast.AST) -> bool:
        return isinstance(node, ast.ExceptHandler) and all(
            isinstance(one, ast.Pass)
            or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
            for one in node.body
        )

    assert list(nodes(python_files(), swallows)) == []


def test_nothing_that_runs_data_as_code_is_used() -> None:
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}

    def runs_data(node: ast.AST) -> bool:
        if isinstance(node, ast.Import):
            return bool(modules & {alias.name.split(".")[0] for alias in node.names})
        if isinstance(node, ast.ImportFrom):
            return (node.module or "").split(".")[0] in modules
        return isinstance(node, ast.Call) and dotted(node.func) in {"eval", "exec"}

    assert list(nodes(python_files(*PACKAGES), runs_data)) == []


def test_yaml_is_read_by_a_safe_loader_alone() -> None:
    unsafe = {"yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", ""}

    def loads(node: ast.AST) -> bool:
        if not (
            isinstance(node, ast.Call) and re.fullmatch(r"yaml\.(load|load_all)", dotted(node.func))
        ):
            return False
        named = {word.arg: dotted(word.value) for word in node.keywords}
        return named.get("Loader", "") in unsafe

    assert list(nodes(python_files(), loads)) == []


def test_only_what_the_ecosystem_expects_lies_at_the_root() -> None:
    expected = {
        "pyproject.toml", "cdc", "sinks", "schemas", "docker", "tests", "README.md", "LICENSE",
        "CHANGELOG.md", "Makefile", "requirements.lock", "requirements-runtime.lock",
        ".ci", ".gitignore", ".editorconfig", ".dockerignore", "setup.py", "MANIFEST.in",
    }  # fmt: skip
    assert {path.parts[0] for path in files()} <= expected


def test_a_clone_is_whole_without_what_git_ignores() -> None:
    ignored = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert ignored == ""
