"""The notebook in examples/ runs from top to bottom and shows what is stored in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_steps.ipynb"
SECONDS = 240


def shown(notebook: Any) -> list[list[object]]:
    """What stands under each cell; warnings on stderr depend on what else is installed."""
    return [
        [
            output.get("text") or dict(output.get("data", {}))
            for output in cell.outputs
            if output.get("name") != "stderr"
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_shows_what_it_stores() -> None:
    pytest.importorskip("torch")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = shown(notebook)
    resources = {"metadata": {"path": str(NOTEBOOK.parents[1])}}
    nbclient.NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=resources
    ).execute()
    assert shown(notebook) == stored
