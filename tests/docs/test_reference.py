"""The generated reference pages are current and complete."""

import typer

from bybit_pipeline.shared.errors import EXIT_CODES
from bybit_pipeline.supervisor.cli.main import app
from scripts import reference


def test_the_pages_were_generated_after_the_last_change() -> None:
    for path, text in reference.files().items():
        assert text == path.read_text("utf-8"), f"{path.name}: run scripts/make_reference"


def test_every_command_option_and_exit_code_is_on_the_page() -> None:
    page = reference.cli_page()
    for name, command in typer.main.get_group(app).commands.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        options = [o for parameter in command.params for o in parameter.opts if o.startswith("--")]
        assert [] == [o for o in options if o not in section and o != "--help"], name
    assert all(f"| {code} | " in page for code in EXIT_CODES)
