"""Command lines from dataclasses: every field is an option, and its docstring the help text."""

from __future__ import annotations

import argparse
import ast
import difflib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

Config = TypeVar("Config")  # a dataclass


class Parser(argparse.ArgumentParser):
    """ArgumentParser that suggests the nearest option and reports expected errors in one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs
        )

    def error(self, message: str) -> NoReturn:
        """Exit with the message, without the usage."""
        self.exit(2, f"{self.prog}: {message}\n{self.prog}: --help lists the options\n")

    @contextmanager
    def exit_on_errors(self, *others: type[Exception]) -> Iterator[None]:
        """Exit with one line for an interruption, a missing package, ValueError, OSError and `others`."""
        expected: tuple[type[Exception], ...] = (OSError, ValueError, *others)
        try:
            yield
        except KeyboardInterrupt:
            self.exit(130, f"{self.prog}: interrupted\n")
        except ImportError as error:
            self.exit(1, f"{self.prog}: {error}; pip install -r training/requirements.txt\n")
        except expected as error:
            self.exit(1, f"{self.prog}: {error}\n")

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse the arguments, by default those of the process; exit for unknown options, naming the nearest one."""
        words = replace_underscores(arguments)
        names = self._option_string_actions
        for name in (word.partition("=")[0] for word in words):
            if name.startswith("--") and name not in names:
                near = difflib.get_close_matches(name, sorted(names), n=1)
                self.error(f"unknown option {name}" + f", did you mean {near[0]}?" * bool(near))
        return self.parse_args(words)


def replace_underscores(arguments: Sequence[str] | None) -> list[str]:
    """Return the arguments, by default those of the process, with dashes for underscores in names of options."""
    words = sys.argv[1:] if arguments is None else arguments
    return [re.sub("^--[^=]+", lambda name: name[0].replace("_", "-"), word) for word in words]


def read_field_docs(cls: type) -> dict[str, str]:
    """Return the docstring of every field of a dataclass and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        name = ""
        for node in body.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
                docs[name] = " ".join(str(node.value.value).split())
    return docs


def format_value(value: Any) -> str:
    """Format a default as it would be typed."""
    if isinstance(value, tuple):
        return " ".join(map(format_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe_type(kind: Any, metavar: str, required: bool) -> dict[str, Any]:
    """Return the arguments of `add_argument` for a field of a type. Text may be a path with ~, as in --output=~/runs."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(kind) is UnionType:  # int | None
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    values: dict[str, Any] = {"metavar": metavar}
    if get_origin(kind) is tuple:
        kind, *others = get_args(kind)
        values["nargs"] = ("+" if required else "*") if others[-1] is Ellipsis else 1 + len(others)
    return values | {"type": os.path.expanduser if kind is str else kind}


def add_fields(
    group: argparse._ActionsContainer, cls: type, prefix: str = "", hide: bool = False
) -> None:
    """Add an option for every field of a dataclass, except for fields that are dataclasses themselves.

    Fields without a default are required; other options that are not given are None. `hide` leaves them out of the help.
    """
    docs, kinds = read_field_docs(cls), get_type_hints(cls)
    for field in fields(cls):
        if is_dataclass(kinds[field.name]) or field.name == "stages":
            continue
        required = field.default is MISSING
        default = "required" if required else f"default: {format_value(field.default) or 'none'}"
        text = f"{docs.get(field.name, '')} ({default})".replace("%", "%%")
        group.add_argument(
            f"--{prefix}{field.name.replace('_', '-')}",
            dest=f"{prefix}{field.name}",
            required=required,
            help=argparse.SUPPRESS if hide else text,
            **_describe_type(kinds[field.name], field.name.upper(), required),
        )


def select_given(values: Mapping[str, Any], cls: type, prefix: str = "") -> dict[str, Any]:
    """Return the options that were given for a dataclass, by field name."""
    found = {f.name: values.get(prefix + f.name) for f in fields(cls)}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items() if v is not None}


def parse_options(parser: Parser, cls: type[Config], arguments: Sequence[str] | None) -> Config:
    """Return the dataclass with the options given. Exits for unknown options; raises the class's ValueError."""
    add_fields(parser.add_argument_group("options"), cls)
    return cls(**select_given(vars(parser.parse(arguments)), cls))
