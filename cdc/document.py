"""A YAML document that knows where each of its values stands and which came from outside.

`${NAME}` and `${NAME:-default}` are environment variables, `${file:/run/secrets/x}` is the content
of a file without its last newline, `$${` is a plain `${`. They are filled in after parsing, so a
value can never change the structure of the document.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from yaml.constructor import SafeConstructor

__all__ = ["Document", "Keys", "Problem", "dotted", "parse"]

Keys = tuple[str | int, ...]
"""A place inside a document: mapping keys and list indexes from the root."""

_REFERENCE = re.compile(r"\$?\$\{([^}]*)\}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where (YAML path, line from 1), what, and what repairs it."""

    path: str
    line: int
    message: str
    hint: str = ""

    def describe(self, document: str) -> str:
        """Return the problem in one line, as editors and people read it."""
        where = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{document}:{self.line}: {where}{self.message}{hint}"


class Document(msgspec.Struct):
    """What was parsed. `outside` maps each value that was filled in to its reference.

    `unfilled` are the places whose reference could not be followed; their value is no value.
    """

    name: str
    data: Any = None
    lines: dict[Keys, int] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)
    outside: dict[str, str] = msgspec.field(default_factory=dict)
    unfilled: set[Keys] = msgspec.field(default_factory=set)

    def line(self, keys: Keys) -> int:
        """Return the line of `keys`, or of the nearest place around it that exists."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def complain(self, keys: Keys, message: str, hint: str = "") -> None:
        """Add a problem at `keys`."""
        self.problems.append(Problem(dotted(keys), self.line(keys), self.redact(message), hint))

    def redact(self, text: str) -> str:
        """Return `text` with every value that came from outside named, not shown."""
        for value, reference in self.outside.items():
            text = text.replace(value, reference)
        return text


def dotted(keys: Keys) -> str:
    """Return `sources.shopdb.tables[0]` for a place."""
    out = ""
    for key in keys:
        if isinstance(key, int):
            out += f"[{key}]"
        else:
            out += f".{key}" if out else key
    return out


def parse(text: str, name: str, environment: Mapping[str, str] | None = None) -> Document:
    """Return the document in `text`; whatever is wrong with it is in its `problems`."""
    document = Document(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        said = error.problem or error.context or "not YAML"
        document.problems.append(Problem("", line, said, _syntax_hint(text, line)))
        return document
    except yaml.YAMLError as error:
        document.problems.append(Problem("", 1, str(error)))
        return document
    if node is None:
        document.problems.append(Problem("", 1, "the file is empty", "`cdc init` writes one"))
        return document
    walker = _Walker(document, os.environ if environment is None else environment)
    document.data = walker.value(node, ())
    return document


def _syntax_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    near = lines[line - 1] if line <= len(lines) else ""
    if "\t" in near:
        return "YAML is indented with spaces, not tabs"
    return "quote values that hold `: `, `#`, `{` or begin with `*`, `!` or `&`"


class _Walker:
    """Turns nodes into values, noting lines, filling references in, refusing double keys."""

    def __init__(self, document: Document, environment: Mapping[str, str]) -> None:
        self._document = document
        self._environment = environment
        self._scalars = SafeConstructor()

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        self._document.lines.setdefault(keys, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*keys, i)) for i, item in enumerate(node.value)]
        try:
            scalar = self._scalars.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            said = getattr(error, "problem", None) or str(error)
            self._document.complain(keys, said, _tag_hint(node))
            return None
        return self._filled(scalar, keys) if isinstance(scalar, str) else scalar

    def _mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        written = [key.value for key, _ in node.value]
        self._scalars.flatten_mapping(node)
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key, str):
                self._document.complain(keys, "a key must be a plain word")
                continue
            place = (*keys, key)
            if written.count(key) > 1:
                self._document.lines[place] = key_node.start_mark.line + 1
                if key in out:
                    self._document.complain(place, "this key is there twice", "keep one of them")
            self._document.lines.setdefault(place, key_node.start_mark.line + 1)
            out[key] = self.value(value_node, place)
        return out

    def _filled(self, text: str, keys: Keys) -> str:
        def fill(found: re.Match[str]) -> str:
            if found[0].startswith("$$"):
                return found[0][1:]
            return self._reference(found[0], found[1], keys)

        return _REFERENCE.sub(fill, text)

    def _reference(self, written: str, inside: str, keys: Keys) -> str:
        if inside.startswith("file:"):
            value = self._file(Path(inside.removeprefix("file:")), keys)
        elif found := _VARIABLE.fullmatch(inside):
            value = self._variable(found[1], found[2], keys)
        else:
            self._document.complain(
                keys,
                f"{written} is not a reference",
                "write ${NAME}, ${NAME:-default}, ${file:/path} or $${ for a plain ${",
            )
            value = None
        if value is None:
            self._document.unfilled.add(keys)
            return written
        if len(value) > 3:
            self._document.outside[value] = written
        return value

    def _variable(self, name: str, default: str | None, keys: Keys) -> str | None:
        value = self._environment.get(name)
        if value:
            return value
        if default is not None:
            return default
        state = "not set" if value is None else "empty"
        self._document.complain(
            keys,
            f"environment variable {name} is {state}",
            f"export {name}=…, or give a default: ${{{name}:-…}}",
        )
        return None

    def _file(self, path: Path, keys: Keys) -> str | None:
        try:
            return path.read_text().removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self._document.complain(
                keys, f"secret file {path}: {reason}", "it must exist and be readable by this user"
            )
            return None


def _tag_hint(node: yaml.Node) -> str:
    return "quote it" if node.tag.startswith(("!", "tag:yaml.org,2002:timestamp")) else ""
