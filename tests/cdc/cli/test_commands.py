"""What every command promises: help with an example, JSON, one-line errors, exit codes."""

from __future__ import annotations

import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from cdc.cli import intruder
from cdc.cli.connectors import CONFIG_PAGE, filled, pages
from cdc.cli.root import COMMANDS, command
from cdc.errors import EXIT_CODES, ConfigError

if TYPE_CHECKING:
    from fix_cli import Cdc


def leaves() -> list[tuple[str, ...]]:
    """Every command that does something, as it is written."""
    out: list[tuple[str, ...]] = []
    for name in COMMANDS:
        made = command(name)
        children = getattr(made, "commands", {})
        out += [(name, child) for child in children] or [(name,)]
    return out


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...], cdc: Cdc) -> None:
    ended = cdc(*path, "--help")
    assert ended.code == 0
    if path[0] != "local":
        assert "Example:" in ended.out, ended.out


@pytest.mark.parametrize("path", leaves(), ids=" ".join)
def test_every_command_that_shows_something_can_show_json(path: tuple[str, ...], cdc: Cdc) -> None:
    runs = {("run",), ("source",), ("sink", "run")}
    assert ("--json" in cdc(*path, "--help").out) == (path not in runs)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_is(name: str) -> None:
    module, _, attribute = COMMANDS[name].path.partition(":")
    found = getattr(import_module(module), attribute)
    text = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert text
    assert len(COMMANDS[name].line) <= 100


def processor_seconds(*arguments: str) -> float:
    """Return what a start takes at best: others share the machine."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    def start() -> float:
        before = used()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        return used() - before

    return min(start() for _ in range(5))


def test_the_help_takes_little_more_than_the_libraries_it_is_printed_with() -> None:
    libraries = processor_seconds("-c", "import typer.main, rich.console, rich.table, rich.panel")
    assert processor_seconds("-m", "cdc", "--help") <= 2.5 * libraries


def test_the_help_imports_no_client() -> None:
    code = (
        "import sys\nfrom cdc.cli import root\nroot._run(['--help'])\n"
        "heavy = {'confluent_kafka', 'psycopg', 'pydantic', 'fastavro', 'structlog'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_a_mistyped_command_names_the_nearest(cdc: Cdc) -> None:
    ended = cdc("statsu")
    assert ended.code == 2
    assert "Did you mean 'status'" in ended.err
    assert "Traceback" not in ended.err


def test_a_missing_file_is_one_line_and_its_remedy(cdc: Cdc, tmp_path: Path) -> None:
    ended = cdc("status", "-c", str(tmp_path / "none.yaml"))
    assert ended.code == 2
    first, second = ended.err.splitlines()
    assert first.startswith("error: pipeline file")
    assert second.startswith("  hint: ")


def test_an_error_can_be_json_too(cdc: Cdc, tmp_path: Path) -> None:
    import json

    ended = cdc("status", "--json", "-c", str(tmp_path / "none.yaml"))
    assert json.loads(ended.err)["exit_code"] == 2


def test_a_traceback_is_shown_only_when_asked_for(cdc: Cdc, tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    assert "Traceback" not in cdc("-c", path, "status").err
    assert "Traceback" in cdc("--debug", "-c", path, "status").err


def test_a_bug_of_ours_is_one_line_too(cdc: Cdc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cdc.cli.connectors._list", lambda **_: 1 / 0)
    ended = cdc("connectors")
    assert ended.code == 1
    assert ended.err.startswith("error: internal error: ZeroDivisionError")


def test_every_exit_code_is_in_the_help(cdc: Cdc) -> None:
    text = " ".join(cdc("--help").out.split())
    assert all(f" {code} " in text for code in {0, *EXIT_CODES.values()})


def test_the_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> str:
        asked = {"_CDC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
        asked["COMP_CWORD"] = str(len(words.split()) - 1)
        code = "from cdc.cli import main; main()"
        arguments = [sys.executable, "-c", code]
        return subprocess.run(
            arguments, env=asked, capture_output=True, text=True, check=False
        ).stdout

    assert completed("cdc sta").split() == ["status"]
    assert "--watch" in completed("cdc status --wa")
    assert completed("cdc position ad").split() == ["adopt"]


def test_the_version_is_told(cdc: Cdc) -> None:
    assert cdc("--version").out.startswith("tailrace ")


def test_a_package_of_the_same_name_is_named_as_the_intruder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError) as caught:
        intruder.check_packages(tmp_path)
    assert "is not Tailrace's" in str(caught.value)
    intruder.check_packages()
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "__init__.py").touch()
    code = "from cdc.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert f"`sinks` is not Tailrace's: Python finds {tmp_path}" in ended.stderr


@pytest.mark.parametrize(("path", "module"), pages().items(), ids=lambda v: getattr(v, "name", ""))
def test_the_tables_of_a_page_are_those_of_its_models(path: Path, module: Any) -> None:
    assert path.read_text() == filled(path, module), "run: cdc connectors --fill-pages"


def test_the_page_of_the_configuration_covers_every_block() -> None:
    page = CONFIG_PAGE.read_text()
    for block in ("PipelineFile", "KafkaConfig", "SourceOptions", "metrics"):
        assert f"<!-- options: {block} -->" in page


def test_the_connectors_are_listed_with_their_options(cdc: Cdc) -> None:
    listed = cdc("connectors", "--json").json()
    assert {(row["kind"], row["type"]) for row in listed} >= {
        ("source", "postgres"),
        ("target", "postgres"),
    }
    options = cdc("connectors", "postgres", "--kind", "target", "--json").json()["options"]
    assert "url" in {row["option"] for row in options}
    assert cdc("connectors", "postgrse").code == 2


def test_the_doctor_tells_what_runs(cdc: Cdc) -> None:
    facts = cdc("doctor", "--json").json()
    assert facts["executor"] in {"plain", "compiled"}
    assert facts["source"]["postgres"] == "cdc.sources.postgres"
    assert cdc("doctor", "--require", "local").code == 0
    assert cdc("doctor", "--require", "magic").code == 2


def test_the_doctor_says_which_executor_runs_and_what_to_do_without_the_compiled_one(
    cdc: Cdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cdc("doctor", "--json").json()["executor"] == "compiled"
    assert cdc("doctor", "--require", "compiled").code == 0
    monkeypatch.setenv("CDC_EXECUTOR", "plain")
    asked = cdc("doctor", "--json", "--require", "compiled")
    assert (asked.code, asked.json()["executor"]) == (1, "plain")
    assert "make compile" in asked.err
