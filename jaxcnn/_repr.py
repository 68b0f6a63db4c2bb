"""How a layer prints: as the call that made it."""

from typing import NamedTuple

_WIDTH = 100  # columns of a line, at most, where it can be broken


class Call(NamedTuple):
    """A function's name and its arguments as text; arguments that are calls may start lines of their own."""

    name: str
    arguments: tuple[tuple[str, "Call | str"], ...]  # (keyword and "=", or "" for a positional one; value)

    def __str__(self) -> str:
        """On one line."""
        return f"{self.name}({', '.join(f'{keyword}{value}' for keyword, value in self.arguments)})"

    def pretty(self, indent: int = 0, prefix: str = "") -> str:
        """On one line if it fits after the prefix; otherwise with an argument per line, like formatted Python code."""
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
