"""What is said of a file or a folder that cannot be written."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modified_lisa.errors import ConfigError
from modified_lisa.files import alone_in, check_folder, write_text


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


def test_links_stay_and_pipes_are_written_to(tmp_path: Path) -> None:
    link, real = tmp_path / "link.json", tmp_path / "elsewhere" / "real.json"
    link.symlink_to(real)
    assert write_text(link, "first") == link
    assert write_text(link, "second") == link
    assert link.is_symlink()
    assert real.read_text() == "second"
    assert os.listdir(real.parent) == ["real.json"]

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other:
        said = other.submit(pipe.read_text)
        write_text(pipe, "through it")
        assert said.result(timeout=20) == "through it"
    assert pipe.is_fifo()
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write_text(null, "nothing")
    assert Path("/dev/null").is_char_device()


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    longest = tmp_path / ("n" * 250 + ".json")
    write_text(longest, "{}")
    assert longest.read_text() == "{}"
    with pytest.raises(OSError, match="too long") as caught:
        write_text(tmp_path / ("n" * 300), "{}")
    assert caught.value.filename == str(tmp_path / ("n" * 300))
    assert os.listdir(tmp_path) == [longest.name]


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with (
        alone_in(folder),
        pytest.raises(ConfigError, match=r"another process is writing into .*run"),
        alone_in(folder),
    ):
        pass
    with alone_in(folder):
        pass
    assert not list(folder.iterdir())
    holder = "import sys; from modified_lisa.files import alone_in\nwith alone_in(sys.argv[1]): print(1, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    with pytest.raises(ConfigError, match="another process"), alone_in(folder):
        pass
    process.kill()
    process.communicate()
    with alone_in(folder):  # what was killed holds nothing
        pass
