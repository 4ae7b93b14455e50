import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import main


def test_both_runs_are_written_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    captions = {
        "old.json": {"1": "a dog runs", "2": "a tree"},
        "new.json": {"1": "a dog runs", "2": "a cat sits"},
        "references.json": {"1": ["a dog runs"], "2": ["a cat sits", "one cat"]},
    }
    for name, value in captions.items():
        Path(name).write_text(json.dumps(value), "utf-8")
    arguments = ["compare", "old.json", "new.json", "--references", "references.json", "--html"]
    result = CliRunner().invoke(main, [*arguments, "pages/out.html"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "page: pages/out.html"
    html = Path("pages/out.html").read_text("utf-8")
    assert '"captions":["a tree","a cat sits"]' in html
    assert "1 of 2 captions differ." in html
    Path("taken").write_text("", "utf-8")
    refused = CliRunner().invoke(main, [*arguments, "taken/out.html"])
    assert refused.exit_code == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("Error: taken/out.html cannot be written (")
