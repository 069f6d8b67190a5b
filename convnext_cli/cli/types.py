"""The types of options and arguments, and their shell completion."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import click
from click.shell_completion import CompletionItem

from convnext_cli.base import shares

F = TypeVar("F", bound=Callable[..., object])
ClickValue: TypeAlias = Any  # the value of an option, an attribute of one, the parser: click gives them no types
PERCENTAGES = "convnext_cli.percentages"  # of a context: the options that were written with a percent sign


class PathName(click.ParamType):  # type: ignore[type-arg]  # generic only in newer releases of click
    """A path as it was typed; the shell completes it. The command checks whether it exists.

    click's own type checks the file itself, and would refuse a photo that should become a failed row.
    """

    name = "path"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


class ModelName(click.ParamType):  # type: ignore[type-arg]
    """The name of a model or a path; known names and paths are completed.

    Args:
        paths: whether paths are allowed.
    """

    name = "name|path"

    def __init__(self, *, paths: bool = True) -> None:
        self._paths = paths

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        files = [CompletionItem(incomplete, type="file")] if self._paths else []
        return [CompletionItem(name) for name in _model_names() if name.startswith(incomplete)] + files


def _model_names() -> Iterable[str]:
    from convnext_cli import zoo

    entries = zoo.entries()
    names = ["default", *zoo.owned(), *(entry.name for entry in entries)]
    return dict.fromkeys([*names, *(alias for entry in entries for alias in entry.aliases)])


class LabelsName(PathName):
    """A file of labels or the name of a bundled set."""

    name = "file|set"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from convnext_cli import labels

        sets = [CompletionItem(name) for name in labels.names() if name.startswith(incomplete)]
        return sets + super().shell_complete(ctx, param, incomplete)


class Share(click.ParamType):  # type: ignore[type-arg]
    """A share of 1, which may be written as a percentage: 0.5 or 50%.

    Args:
        low, high: the limits. With None for ``high`` it is a score, which has no limits.
        open: whether each limit is excluded.
    """

    name = "share"

    def __init__(self, low: float = 0.0, high: float | None = 1.0, *, open: tuple[bool, bool] = (False, False)) -> None:
        self._low, self._high, self._open = low, high, open

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            number = shares.parse(text)
        except ValueError:
            number = float("nan")
        if not abs(number) < float("inf"):
            self.fail(f"{text!r} is not a number such as 0.5 or 50%", param, ctx)
        if shares.is_percentage(text) and ctx is not None and param is not None:
            ctx.meta.setdefault(PERCENTAGES, set()).add(param.name)
        if self._high is not None and not self._between(number):
            if 1 < number <= 100:
                self.fail(f"{text} is above 1: write {number / 100:g} or {number:g}%", param, ctx)
            self.fail(f"{text} is not between {self._low:g} and {self._high:g}", param, ctx)
        return number

    def _between(self, number: float) -> bool:
        assert self._high is not None
        above = number > self._low if self._open[0] else number >= self._low
        return above and (number < self._high if self._open[1] else number <= self._high)


class Percent(click.ParamType):  # type: ignore[type-arg]
    """A percentage from 0 to 100, with or without the sign. A number below 1 needs the sign."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = float("nan")
        if not 0 <= number <= 100:
            self.fail(f"{text!r} is not a percentage from 0 to 100", param, ctx)
        if 0 < number < 1 and not text.endswith("%"):
            self.fail(f"{text} is less than one percent: write {number * 100:g}, or {number:g}%", param, ctx)
        return number


class Choice(click.Choice):  # type: ignore[type-arg]
    """A choice that also accepts the words of other programs; --help shows only our own."""

    def __init__(self, choices: Iterable[str], synonyms: dict[str, str]) -> None:
        super().__init__(list(choices))
        self._synonyms = synonyms

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        return super().convert(self._synonyms.get(str(value).lower(), value), param, ctx)


DTYPE_SYNONYMS = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}


def dtypes(*names: str) -> Choice:
    """A choice of precisions, with the abbreviations of other programs."""
    return Choice(names, {short: name for short, name in DTYPE_SYNONYMS.items() if name in names})


def device(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A device by our name: other programs use CPU, gpu, or a GPU's number alone."""
    if value is None:
        return None
    return ",".join(_device(name) for name in value.split(","))


def _device(name: str) -> str:
    if name.isdecimal():
        return f"cuda:{name}"
    name = name.lower()
    return ("mps" if sys.platform == "darwin" else "cuda") if name == "gpu" else name


class Option(click.Option):
    """An option with names from other programs, which --help does not show.

    Args:
        aliases: further names.
        constants: names without a value, with the value that each stands for.
    """

    def __init__(
        self,
        names: Sequence[str],
        aliases: Iterable[str] = (),
        constants: Mapping[str, object] = MappingProxyType({}),
        **attributes: ClickValue,
    ) -> None:
        super().__init__(names, **attributes)
        self.aliases, self.constants = list(aliases), constants

    def add_to_parser(self, parser: ClickValue, ctx: click.Context) -> None:
        shown = self.opts
        self.opts = [*shown, *self.aliases]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown
        for name, constant in self.constants.items():
            parser.add_option(obj=self, opts=[name], dest=self.name, action="store_const", const=constant)


def option(*names: str, **attributes: ClickValue) -> Callable[[F], F]:
    """``click.option`` with ``aliases`` and ``constants``."""
    return click.option(*names, cls=Option, **attributes)
