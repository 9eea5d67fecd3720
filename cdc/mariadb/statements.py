"""What a statement in the log means for us: nothing, an end, an emptied table, or a stop.

In row format the log has statements for what is not rows: the limits of transactions and DDL. A
statement that changes rows was logged in statement format; what it did to which rows, nobody but
the server can tell (R7).

Source: MariaDB documentation, "Binary Log Formats", "Comment Syntax".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

import msgspec

from schemas.table import TableId

__all__ = ["SCHEMA", "XA", "Deed", "Statement", "read_statement"]

_QUOTED = r"'(?:[^'\\]|\\.|'')*+'?|\"(?:[^\"\\]|\\.|\"\")*+\"?|`(?:[^`]|``)*+`?"
_CONDITIONAL = r"/\*M?!(?:\d{5,6})?|\*/"
_COMMENT = r"--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z)"
_NOTHING = re.compile(rf"(?P<quoted>{_QUOTED})|{_CONDITIONAL}|{_COMMENT}", re.DOTALL)
"""What stands between words: a comment, or the limits of one that the server reads as code."""
_WORD = re.compile(r"[A-Za-z]+")
_NAME = r"(?:`(?:[^`]|``)+`|[\w$\u0080-\uffff]+)"
_TABLE = re.compile(rf"(?:({_NAME})\s*\.\s*)?({_NAME})")
_TARGET = {
    "TRUNCATE": re.compile(r"TRUNCATE\s+(?:TABLE\s+)?(?:IF\s+EXISTS\s+)?", re.IGNORECASE),
    "CREATE": re.compile(
        r"CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?", re.IGNORECASE
    ),
    "DROP": re.compile(r"DROP\s+TABLES?\s+(?:IF\s+EXISTS\s+)?", re.IGNORECASE),
    "RENAME": re.compile(r"RENAME\s+TABLES?\s+(?:IF\s+EXISTS\s+)?", re.IGNORECASE),
    "ALTER": re.compile(
        r"ALTER\s+(?:ONLINE\s+)?(?:IGNORE\s+)?TABLE\s+(?:IF\s+EXISTS\s+)?", re.IGNORECASE
    ),
}
_EMPTYING = re.compile(r"\b(?:DROP|TRUNCATE|EXCHANGE)\s+PARTITION\b|\bTABLESPACE\b", re.IGNORECASE)
_RENAMING = re.compile(r"\bRENAME\s+(?!COLUMN\b|KEY\b|INDEX\b)", re.IGNORECASE)
_DATABASE = re.compile(rf"DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?({_NAME})", re.IGNORECASE)
_FILLING = re.compile(r"\bSELECT\b|\bVALUES\s*\(", re.IGNORECASE)
_KEYS = r"INDEX|KEY|PRIMARY|UNIQUE|FOREIGN|FULLTEXT|SPATIAL|CONSTRAINT|CHECK|PARTITION"
_DROPPING = re.compile(rf"\bDROP\s+(?!{_KEYS})", re.IGNORECASE)
_ADDING = re.compile(rf"\bADD\s+(?!{_KEYS})", re.IGNORECASE)
_REWRITING = re.compile(
    r"\bMODIFY\b|\bCHANGE\b|\bCONVERT\b|\bIMPORT\b|\bRENAME\s+COLUMN\b.*\bRENAME\s+COLUMN\b",
    re.IGNORECASE | re.DOTALL,
)
_RESHAPING = re.compile(
    r"\b(?:MODIFY|CHANGE|CONVERT|RENAME|ALTER|COLUMN|PRIMARY|PERIOD|VERSIONING"
    r"|ADD(?!\s+(?:INDEX|KEY|FULLTEXT|SPATIAL|FOREIGN|PARTITION)\b)"
    r"|DROP(?!\s+(?:INDEX|KEY|FOREIGN|PARTITION)\b))\b",
    re.IGNORECASE,
)
_XA_END = re.compile(r"XA\s+(COMMIT|ROLLBACK)\b", re.IGNORECASE)
_BETWEEN = re.compile(r"\s*(?:,|\bTO\b)\s*", re.IGNORECASE)
_ROWS = {"INSERT", "UPDATE", "DELETE", "REPLACE", "LOAD", "CALL", "WITH", "SELECT", "DO", "EXECUTE"}
_VAGUE = {"ALTER", "RENAME"}
_PASSING = {"SAVEPOINT", "RELEASE", "SET", "USE"}


class Deed(Enum):
    """What a statement does."""

    BEGIN = "begins a transaction"
    COMMIT = "commits it"
    ROLLBACK = "rolls it back"
    UNDO = "rolls back to a savepoint"
    ROWS = "changes rows"
    TRUNCATE = "empties a table"
    CREATE = "makes a table"
    REPLACE = "makes a table in the place of another"
    DROP = "takes tables away, or moves them"
    ALTER = "changes a table"
    EMPTY = "takes rows out of a table without logging them"
    XA = "begins an XA transaction, or prepares it"
    XA_COMMIT = "commits an XA transaction"
    XA_ROLLBACK = "rolls an XA transaction back"
    DDL = "changes the schema"
    NOTHING = "nothing"


SCHEMA = (Deed.CREATE, Deed.REPLACE, Deed.DROP, Deed.ALTER, Deed.EMPTY, Deed.DDL)
"""What changes schemas."""
XA = (Deed.XA, Deed.XA_COMMIT, Deed.XA_ROLLBACK)
"""What is about an XA transaction as a whole."""


class Statement(msgspec.Struct, frozen=True):
    """A statement, and the tables it is about where that matters; all of a database have no name.

    `rewrites`: it may give rows of them other values without logging them. `reshapes`: it may give
    them other columns or another key. `vague` is the text of one that may be about any table it
    names.
    """

    deed: Deed
    tables: tuple[TableId, ...] = ()
    rewrites: bool = False
    reshapes: bool = True
    vague: str = ""

    def concerns(self, table: TableId) -> bool:
        """Tell whether it may have changed what `table` is: when in doubt, it may."""
        if not self.reshapes:
            return False
        said = table in self.tables or TableId(table.schema, "") in self.tables
        return said or table.name in self.vague


_FIRST = {
    "BEGIN": Deed.BEGIN,
    "START": Deed.BEGIN,
    "COMMIT": Deed.COMMIT,
    "XA": Deed.XA,
    **dict.fromkeys(_ROWS, Deed.ROWS),
    **dict.fromkeys(_PASSING, Deed.NOTHING),
}


def read_statement(text: str, database: str) -> Statement:
    """Return what `text` means; `database` is the session's own."""
    plain = _stripped(text)
    found = _WORD.match(plain)
    word = found[0].upper() if found else ""
    if word == "ROLLBACK":
        undo = re.match(r"ROLLBACK\s+(?:WORK\s+)?TO\b", plain, re.IGNORECASE)
        return Statement(Deed.UNDO if undo else Deed.ROLLBACK)
    if word in _FIRST:
        ends = _XA_END.match(plain)
        return Statement(Deed[f"XA_{ends[1].upper()}"] if ends else _FIRST[word])
    whole = _DATABASE.match(plain)
    if whole is not None:
        return Statement(Deed.DROP, (TableId(_bare(whole[1]), ""),))
    head = _TARGET[word].match(plain) if word in _TARGET else None
    if head is None:
        return Statement(Deed.DDL, vague=plain if word in _VAGUE else "")
    tables = tuple(_tables(plain[head.end() :], database, several=word in ("DROP", "RENAME")))
    if not tables:
        return Statement(Deed.DDL)
    rest = plain[head.end() :]
    return Statement(_deed(word, plain), tables, _rewrites(word, rest), _reshapes(word, rest))


def _rewrites(word: str, text: str) -> bool:
    """Tell whether values may change unlogged; when in doubt they may, and are read again.

    CREATE … SELECT has its rows in the log, and no SELECT there, but for a session in statement
    format. ALTER: a column that keeps its name and type may still get other values.
    """
    if word == "CREATE":
        return _FILLING.search(text) is not None
    replaced = _DROPPING.search(text) is not None and _ADDING.search(text) is not None
    return word == "ALTER" and (replaced or _REWRITING.search(text) is not None)


def _reshapes(word: str, text: str) -> bool:
    """Tell whether columns or the key may change; of an ALTER, what is about other things cannot.

    A unique index may: over a BLOB it has a column of its own.
    """
    return word != "ALTER" or _RESHAPING.search(text) is not None


def _deed(word: str, plain: str) -> Deed:
    if word == "CREATE" and re.match(r"CREATE\s+OR\s+REPLACE\b", plain, re.IGNORECASE):
        return Deed.REPLACE
    if word == "ALTER" and _EMPTYING.search(plain):
        return Deed.EMPTY
    if word == "RENAME" or (word == "ALTER" and _RENAMING.search(plain)):
        return Deed.DROP
    return Deed[word]


def _tables(text: str, database: str, *, several: bool) -> Iterator[TableId]:
    """Yield the tables `text` begins with; `several` with commas, or TO, between them."""
    while found := _TABLE.match(text):
        yield TableId(_bare(found[1]) if found[1] else database, _bare(found[2]))
        between = _BETWEEN.match(text, found.end()) if several else None
        if between is None:
            return
        text = text[between.end() :]


def _stripped(text: str) -> str:
    """Return `text` without comments, and without what comes before its first word."""
    return _NOTHING.sub(lambda found: found["quoted"] or " ", text).strip("( \t\r\n")


def _bare(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name
