"""A file of people as spreadsheets write it: UTF-8 or UTF-16, any usual separator, a header line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from types import MappingProxyType

from rvpfarm.admin.checks import Refused, enumerate_names

#: What each column is called, as a field of L{Person}; case, spaces, hyphens and underscores do not matter.
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "address": "address",
        "imaddress": "address",
        "mail": "address",
        "mailaddress": "address",
        "emailaddress": "address",
        "home": "home",
        "homeserver": "home",
        "domain": "domain",
        "imdomain": "domain",
        "displayname": "display_name",
        "name": "display_name",
        "email": "email",
        "password": "password",
    }
)

#: The longest cell.
CELL_LIMIT = 1024

_SEPARATORS = ";,\t"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is to be a user; what is empty was not given.

    @ivar line: where it was read.
    @ivar link: what never changes of his entry, where he comes from LDAP.
    @ivar problem: why it cannot be used at all, a sentence; empty if it can.
    """

    line: int
    address: str = ""
    home: str = ""
    domain: str = ""
    display_name: str = ""
    email: str = ""
    password: str = ""
    link: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """A file of people.

    @ivar unused: columns that mean nothing here.
    @ivar lines: how many lines it has, so at least as many as people.
    """

    rows: Iterator[Person]
    unused: tuple[str, ...]
    lines: int


def read_people(data: bytes) -> People:
    """The people in a file.

    @param data: the file: text with a header line, in UTF-8 or in UTF-16 with a mark, separated by commas,
        semicolons or tabs.
    @raise Refused: it is none, or has no column of addresses.
    """
    text = _decode(data)
    start = 1
    separator = ""
    if text[:4].lower() == "sep=":  # Excel's own way to say it
        line, _, text = text.partition("\n")
        separator, start = line[4:5], 2
    header = text.partition("\n")[0]
    if not separator:
        separator = max(_SEPARATORS, key=header.count)
    cells = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip() for name in next(cells)]
    except StopIteration:
        raise Refused("the file is empty; its first line has to name the columns, such as address") from None
    except csv.Error as problem:
        raise Refused(f"the first line of the file cannot be read: {problem}") from problem
    fields = [COLUMNS.get(_plain(name), "") for name in names]
    if "address" not in fields and "email" in fields:
        fields[fields.index("email")] = "address"
    if "address" not in fields:
        raise Refused(
            f"the file has no column of addresses (its columns are {enumerate_names(names)}); call one of "
            "them address, in the first line"
        )
    twice = {field for field in fields if field and fields.count(field) > 1}
    if twice:
        raise Refused(f"several columns mean {enumerate_names(twice)}; rename all but one of each")
    unused = tuple(name for name, field in zip(names, fields, strict=True) if name and not field)
    return People(_rows(cells, fields, start), unused, text.count("\n") + 1)


# csv has no public type for its readers
def _rows(cells: Iterator[list[str]], fields: list[str], start: int) -> Iterator[Person]:
    """One person for each line that is not empty."""
    line = start
    while True:
        line = start + getattr(cells, "line_num", 0)
        try:
            row = next(cells)
        except StopIteration:
            return
        except csv.Error as problem:
            yield Person(line, problem=f"the line cannot be read ({problem}); see to its quotation marks")
            continue
        values = [_clean(value) for value in row]
        if any(values):
            yield _person(line, values, fields)


def _person(line: int, values: list[str], fields: list[str]) -> Person:
    """What one line says."""
    beyond = [value for value in values[len(fields) :] if value]
    if beyond:
        return Person(line, values[0], problem="the line has more cells than the first one names columns")
    found = {field: value for field, value in zip(fields, values, strict=False) if field}
    long = [field for field, value in found.items() if len(value) > CELL_LIMIT]
    if long:
        return Person(line, problem=f"the {long[0]} is longer than {CELL_LIMIT} characters; shorten it")
    if not found.get("address"):
        return Person(line, problem="the line has no address; give one, or delete the line")
    return Person(line, **found)


def _decode(data: bytes) -> str:
    """The text of the file.

    @raise Refused: it is in another encoding, or no text.
    """
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise Refused(
            f'the file is not UTF-8 (line {line}); save it as "CSV UTF-8", or convert it with iconv'
        ) from None
    if "\0" in text or data[:2] == b"PK":
        raise Refused('the file is no text; save the table as "CSV UTF-8"')
    return text


def _plain(name: str) -> str:
    """A column's name as L{COLUMNS} has it."""
    return "".join(each for each in name.lower() if each not in " -_\xa0.")


def _clean(value: str) -> str:
    """A cell without what spreadsheets put around it: blanks of all kinds, and the formula that is a text."""
    value = value.strip(" \t\r\n\xa0\u200b\ufeff")
    if value.startswith('="') and value.endswith('"') and len(value) > 2:
        value = value[2:-1]
    return value
