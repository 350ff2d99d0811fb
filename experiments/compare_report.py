"""The table of `experiments.compare`: what there is, gathered, counted and written."""

from pathlib import Path


def failure(folder: Path, name: str) -> Path:
    """The file that says why an entry has failed."""
    return folder / "failures" / f"{name}.json"


def write(folder: Path) -> Path:
    """Writes the table; returns the path of the HTML."""
    return folder / "RESULTS.html"
