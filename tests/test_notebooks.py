"""Notebooks run from top to bottom, offline, and give what they say."""
import ast
import json
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def run(path):
    """Executes the code cells in one namespace, as a kernel would; the value of each cell's last expression."""
    names, values = {}, []
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(path), "exec"), names)
        values.append(eval(compile(ast.Expression(last.value), str(path), "eval"), names) if last else None)
    return values


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path):
    values = run(path)
    assert values and all(v is not None for v in values)
    for value in values:
        if hasattr(value, "size") and hasattr(value, "getpixel"):
            assert np.asarray(value).std() > 5, "an empty picture"


def test_textures_give_the_frame_back():
    difference = run(next(p for p in NOTEBOOKS if p.stem == "textures"))[-1]
    assert difference < 0.02
