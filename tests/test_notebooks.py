"""The notebooks run from top to bottom, in a folder of their own, and show what they say they show."""

import pathlib

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
# Plots, and what is printed: the first by the number of them, the others by a part of the text.
SHOWN = {
    "distil_your_own": (3, ["(1438, 8, 8, 1) (359, 8, 8, 1)", "model_int8.tflite", "and the file says"]),
    "your_keras_code": (1, ["teacher: 151,306 parameters", "share of the gradient", "kd + tkd"]),
}
# Epochs as they are written there, and how many of them a test trains: nothing here goes by what is learned.
FEWER = {
    "distil_your_own": {"epochs=20,": "epochs=3,", "teacher_epochs=10,": "teacher_epochs=2,"},
    "your_keras_code": {"EPOCHS = 20": "EPOCHS = 2", "epochs=10,": "epochs=2,"},
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    if path.stem == "distil_your_own":
        pytest.importorskip("ai_edge_litert")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are of one machine and day: clear them"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for written, fewer in FEWER[path.stem].items():
        assert any(written in cell.source for cell in code), written
        for cell in code:
            cell.source = cell.source.replace(written, fewer)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    plots, texts = SHOWN[path.stem]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == plots
    printed = "".join(output.get("text", "") for output in outputs)
    assert all(text in printed for text in texts)
    assert "Traceback" not in printed


def test_every_notebook_is_known():
    assert {path.stem for path in NOTEBOOKS} == set(SHOWN) == set(FEWER)
