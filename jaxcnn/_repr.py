"""The representation of a layer: the call that constructs it."""

from typing import NamedTuple

_WIDTH = 100  # maximum line length, unless a line cannot be broken


class Call(NamedTuple):
    """A function call as text. Arguments that are calls may span several lines."""

    name: str
    arguments: tuple[tuple[str, "Call | str"], ...]  # (keyword and "=", or "" for a positional one; value)

    def __str__(self) -> str:
        """The call on one line."""
        return f"{self.name}({', '.join(f'{keyword}{value}' for keyword, value in self.arguments)})"

    def pretty(self, indent: int = 0, prefix: str = "") -> str:
        """The call on one line if it fits after the prefix; otherwise one argument per line, like formatted code."""
        line = prefix + str(self)
        nested = any(isinstance(value, Call) for _, value in self.arguments)
        if indent + len(line) <= _WIDTH or not nested:
            return " " * indent + line
        inner = indent + 4
        lines = (
            value.pretty(inner, keyword) if isinstance(value, Call) else f"{' ' * inner}{keyword}{value}"
            for keyword, value in self.arguments
        )
        start = f"{' ' * indent}{prefix}{self.name}("
        return "\n".join([start, *(f"{line}," for line in lines), f"{' ' * indent})"])
