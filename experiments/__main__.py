"""List the programs in this folder: `python -m experiments`."""

import ast
import pathlib

FOLDER = pathlib.Path(__file__).parent


def programs() -> dict[str, str]:
    """name -> the first line of the documentation of `python -m experiments.name`."""
    files = {path.stem: path for path in FOLDER.glob("[!_]*.py")}
    files |= {path.parent.name: path for path in FOLDER.glob("*/__main__.py")}
    text = lambda path: ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return {name: text(path).partition("\n")[0] for name, path in sorted(files.items())}


if __name__ == "__main__":
    print("Run a program by python -m experiments.NAME; --help prints its settings.\n")
    for name, line in programs().items():
        print(f"{name:<24}  {line}")
