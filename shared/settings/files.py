"""Files that other programs read while we write them."""

from pathlib import Path


def replace_file(path: Path, text: str) -> None:
    """
    Write a file completely or not at all, through a file beside it that ends in ``.partial``.

    Raises:
        OSError: If it cannot be written; the file before is still there.
    """
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
