"""Makes help texts complete and plain: whole names of options, and words for values in place of types of Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from typer import rich_utils
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from stream_guard.cli.terminal import near_terminal

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Command", "Group", "show_help_whole"]

_WORDS: Final = {"str": "TEXT", "Path": "FILE", "int": "N", "float": "N"}
_PIPE_WIDTH: Final = 200
"""Columns of a help text in a pipe or a file."""


class Command(TyperCommand):
    """A command whose help names values in plain words, and says nothing about the values of flags."""

    def __init__(self, *given: Any, **named: Any) -> None:  # noqa: ANN401 - typer's own
        super().__init__(*given, **named)
        if self.help:
            # A line's end in a docstring is no line's end of the help.
            self.help = "\n\n".join(" ".join(part.split()) for part in self.help.split("\n\n"))
        for parameter in self.params:
            if isinstance(parameter, TyperOption):
                if parameter.metavar is None and not parameter.type_descriptor.is_choice:
                    word = _WORDS.get(_value_type(parameter))
                    parameter.metavar = "" if parameter.is_flag else word
            elif isinstance(parameter, TyperArgument) and not parameter.type_descriptor.is_choice:
                # Its own name stands before it already.
                parameter.display_type_rich = _nothing  # type: ignore[method-assign]

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own click
        """Return the parameters, with ``--help`` as a flag like others."""
        return _plain_flags(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose help says nothing about the values of flags."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own click
        """Return the parameters."""
        return _plain_flags(super().get_params(ctx))


def _plain_flags(found: list[Any]) -> list[Any]:
    for parameter in found:
        if isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = parameter.metavar or ""
    return found


def _value_type(option: TyperOption) -> str:
    return option.bare_type().removeprefix("list[").removesuffix("]")


def _nothing(ctx: object) -> None:
    del ctx


class _Whole(rich_utils.OptionHighlighter):
    """Highlights options, and folds a name that is longer than its column; nothing of it is cut."""

    def __call__(self, text: str | Text) -> Text:
        shown = super().__call__(text)
        shown.overflow = "fold"
        return shown


def show_help_whole() -> None:
    """Let help texts show whole names: folded in narrow columns, and on wide lines where there is no terminal."""
    rich_utils.highlighter = _Whole()
    if not (near_terminal() or {"COLUMNS", "TERMINAL_WIDTH"} & os.environ.keys()):
        rich_utils.MAX_WIDTH = _PIPE_WIDTH
