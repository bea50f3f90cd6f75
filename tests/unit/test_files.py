"""What is said of a file or a folder that cannot be written."""

import os
from pathlib import Path

import pytest

from modified_lisa.errors import ConfigError
from modified_lisa.files import check_folder, write_text


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the temporary one beside it, whose name is made up."""
    taken = tmp_path / "answer.json"
    taken.mkdir()
    with pytest.raises(OSError, match="answer") as caught:
        write_text(taken, "{}")
    assert caught.value.filename == str(taken)

    def denied(*, prefix: str, suffix: str, dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir / f"{prefix}x{suffix}"))

    monkeypatch.setattr("modified_lisa.files.tempfile.mkstemp", denied)
    with pytest.raises(PermissionError) as refused:
        write_text(tmp_path / "other.json", "{}")
    assert refused.value.filename == str(tmp_path / "other.json")
    assert os.listdir(tmp_path) == ["answer.json"]


def test_a_folder_is_known_to_take_files_before_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for good in (".", "new", "new/deep/er", tmp_path, tmp_path / "x"):
        check_folder("--out_dir", good)
    assert not list(tmp_path.iterdir())
    Path("file").touch()
    with pytest.raises(ConfigError, match=r"^--out_dir is 'file', a file; name a folder$"):
        check_folder("--out_dir", "file")
    with pytest.raises(ConfigError, match=r"^--out_dir is 'file/a/b', and file is a file; name a folder$"):
        check_folder("--out_dir", "file/a/b")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be written to; name another folder"):
        check_folder("--out_dir", tmp_path / "a" / "b")
