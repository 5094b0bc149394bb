"""Writing a file completely or not at all."""

from pathlib import Path


def replace_file(path: Path, content: str | bytes) -> None:
    """
    Write a file under another name and rename it, so that readers never see a part of it.

    The other name has the suffix ``.partial``.
    """
    partial = path.with_suffix(".partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    partial.replace(path)
