"""The notebooks in docs/ run, cell by cell, and show the last value of each cell as Jupyter does."""

import ast
import pathlib

import pytest

cells = pytest.importorskip("docs._notebooks", reason="needs pip install '.[docs]'").cells

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "notebooks"


def run_cell(text, names):
    """Run the text. The value of a last line that is an expression is returned, None if it is none."""
    tree = ast.parse(text)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    for package in ("matplotlib", "orbax.checkpoint", "safetensors"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    names, shown = {"__name__": "__main__"}, 0
    for is_markdown, text in cells(path.read_text()):
        if is_markdown:
            continue
        value = run_cell(text, names)
        if value is not None:
            shown += 1
            assert repr(value)
            if html := getattr(value, "_repr_html_", lambda: None)():  # that of a figure is None
                assert html.startswith("<")
    assert shown >= 4


def test_each_notebook_starts_with_its_title():
    paths = sorted(FOLDER.glob("*.py"))
    assert len(paths) == 6
    for path in paths:
        (first, text), *rest = cells(path.read_text())
        assert first
        assert text.startswith("# ")
        assert sum(not is_markdown for is_markdown, _ in rest) >= 4


def test_a_notebook_must_consist_of_cells():
    assert cells("# %%\nx = 1\n\n# %% [markdown]\n# # Title\n#\n# text\n") == [
        (False, "x = 1"),
        (True, "# Title\n\ntext"),
    ]
    for text in ("x = 1\n", "# %% [markdown]\n# text\nx = 1\n"):
        with pytest.raises(ValueError, match="must start with"):
            cells(text)
