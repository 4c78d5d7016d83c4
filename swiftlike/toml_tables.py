"""TOML tables as frozen dataclasses: every key typed, bounded and known by name, or the start stops with a sentence.

Owns how a table becomes a dataclass and how a wrong key is told. Never knows what a setting means: that is `config`'s.

A dataclass says it all: a field without a default is required, `Annotated[int, Between(1, 9)]` is bounded, a `Path` is
taken from the directory of the file that names it, `tuple[T, ...]` is an array, of tables where T is a dataclass. A field
that its dataclass keeps out of its repr is a secret: a complaint about it does not show what it is.
"""

import errno
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

SECRET_MODE_MASK = 0o077


class ConfigError(Exception):
    """A configuration that stops the start; the sentence names the file, the key and the fix."""


@dataclass(frozen=True, slots=True)
class Between:
    """Inclusive bounds of a number, or of the length of a text."""

    least: float
    most: float


def load_table(kind: type[T], path: Path, *, secret: bool = False) -> T:
    """Read the TOML file `path` into the dataclass `kind`.

    Raises ConfigError when it cannot be read, is no TOML, or has a wrong key; with `secret`, also when others may read it.
    """
    raw = read_secret(path) if secret else read_file(path)
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML ({error}): correct it there") from None
    return _Reader(path).dataclass(kind, table, "")


def read_secret(path: Path) -> bytes:
    """Return the content of a file that only its owner may read. Raises ConfigError when others may."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error) from None
    if mode & SECRET_MODE_MASK:
        raise ConfigError(f"{path} holds a secret and others may read it: run chmod 600 {path}")
    return read_file(path)


def read_file(path: Path) -> bytes:
    """Return the content of a file. Raises ConfigError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> ConfigError:
    fixes = {errno.ENOENT: "write it, or correct its name", errno.EACCES: "give this user access to it"}
    fix = fixes.get(error.errno or 0, "correct its name, or look at its disk")
    return ConfigError(f"{path} cannot be read ({error.strerror}): {fix}")


class _Reader:
    """Turns the tables of one file into dataclasses."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def dataclass(self, kind: type[T], table: object, where: str) -> T:
        """Make a `kind` of a table, which stands at the key `where` of the file."""
        if not isinstance(table, dict):
            raise self._wrong(where, "must be a table", table, _shown)
        assert is_dataclass(kind)
        hints = get_type_hints(kind, include_extras=True)
        for key in table:
            if key not in hints:
                raise ConfigError(
                    f"{self._path}: {_join(where, key)} is not a setting: {_advice(key, list(hints))}"
                )
        values: dict[str, Any] = {}
        for field in fields(kind):
            key = _join(where, field.name)
            if field.name in table:
                shows = _shown if field.repr else _hidden
                values[field.name] = self._value(hints[field.name], table[field.name], key, shows)
            elif field.default is MISSING and field.default_factory is MISSING:
                raise ConfigError(f"{self._path}: {key} is missing: set it to {_wanted(hints[field.name])}")
        return kind(**values)

    def _value(self, hint: Any, value: object, key: str, shows: "Shows") -> Any:
        bounds: Between | None = None
        if get_origin(hint) is Annotated:
            hint, bounds = get_args(hint)
        if get_origin(hint) in (Union, UnionType):
            (hint,) = [kind for kind in get_args(hint) if kind is not NoneType]
            if get_origin(hint) is Annotated:
                hint, bounds = get_args(hint)
        if get_origin(hint) is tuple:
            if not isinstance(value, list):
                raise self._wrong(key, f"must be {_wanted(hint)}", value, shows)
            kind = get_args(hint)[0]
            return tuple(self._value(kind, item, f"{key}[{at}]", shows) for at, item in enumerate(value))
        if isinstance(hint, type) and is_dataclass(hint):
            return self.dataclass(hint, value, key)
        if hint is Path:
            if not isinstance(value, str) or not value or "\0" in value:
                raise self._wrong(key, "must be a path", value, shows)
            return self._path.parent / value
        return self._scalar(hint, bounds, value, key, shows)

    def _scalar(self, hint: Any, bounds: Between | None, value: object, key: str, shows: "Shows") -> Any:
        whole_for_real = hint is float and type(value) is int
        if type(value) is not hint and not whole_for_real:  # exactly: True is an int to isinstance
            raise self._wrong(key, f"must be {_wanted(hint)}", value, shows)
        if bounds is not None:
            size = len(value) if isinstance(value, str) else value
            assert isinstance(size, int | float)
            if not bounds.least <= size <= bounds.most:
                what = "must have a length of" if isinstance(value, str) else "must be"
                raise self._wrong(key, f"{what} {_span(bounds)}", value, shows)
        return float(value) if whole_for_real else value  # type: ignore[arg-type]  # it is an int

    def _wrong(self, key: str, rule: str, value: object, shows: "Shows") -> ConfigError:
        return ConfigError(f"{self._path}: {key} {rule}, and is {shows(value)}")


Shows: TypeAlias = Callable[[object], str]
"""How a value that is wrong is told."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _hidden(value: object) -> str:
    return "not (it is a secret, and not shown)"


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _advice(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, n=1)
    return f"did you mean {near[0]}?" if near else f"remove it, or use one of {', '.join(sorted(known))}"


def _span(bounds: Between) -> str:
    """Say in words what bounds allow: whole numbers to the last digit."""
    least, most = (
        f"{bound:g}" if isinstance(bound, float) else str(bound) for bound in (bounds.least, bounds.most)
    )
    return least if least == most else f"{least} to {most}"


def _wanted(hint: Any) -> str:
    """Say in words what a type asks for."""
    if get_origin(hint) is Annotated:
        hint, bounds = get_args(hint)
        unit = " characters" if hint is str else ""
        return f"{_wanted(hint)} ({_span(bounds)}{unit})"
    if get_origin(hint) is tuple:
        kind = get_args(hint)[0]
        return "an array of tables" if is_dataclass(kind) else f"an array, each {_wanted(kind)}"
    if is_dataclass(hint):
        return "a table"
    words = {
        str: "a text in quotes",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Path: "a path",
    }
    return words[hint]
