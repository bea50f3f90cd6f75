"""``modified-lisa chat``: what is printed and written, commands, and how it ends."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from factory import picture, tiny_model
from modified_lisa import Segmenter
from modified_lisa.apps import cli
from modified_lisa.apps.chat import Chat


def speaking(boost: float = 20.0) -> Segmenter:
    model = tiny_model(answers=True)
    with torch.no_grad():
        model.answer_head.column.row.mul_(boost)
    return Segmenter(model)


def talk(segmenter: Segmenter, folder: Path, lines: list[Any], **options: Any) -> Chat:
    """A chat that is fed these lines; an exception among them is raised."""
    given = iter(lines)

    def ask(_prompt: str) -> str:
        line = next(given, None)
        if line is None:
            raise EOFError
        if isinstance(line, type):
            raise line
        return str(line)

    chat = Chat(segmenter, folder, max_new_tokens=5, ask=ask, **options)
    chat.open(str(folder / "photo.png"))
    chat.talk()
    return chat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    return tmp_path


def test_answers_are_shown_and_drawn(folder: Path, capsys: Any) -> None:
    segmenter = speaking()
    talk(segmenter, folder, ["all that is not round", "", "and the rest?"])
    out = capsys.readouterr().out
    session = segmenter.open(picture())
    for number, question in enumerate(["all that is not round", "and the rest?"], 1):
        expected = session.ask(question, max_new_tokens=5)
        assert expected.text in out
        if len(expected):
            assert f"photo_answer_{number}.png" in out
            with Image.open(folder / f"photo_answer_{number}.png") as drawn:
                assert drawn.size == (80, 60)
    assert "cut off after 5 tokens" in out
    assert "\x1b" not in out  # no colours where it is not a terminal


def test_an_answer_without_a_mask(folder: Path, capsys: Any) -> None:
    talk(speaking(0.0), folder, ["anything?"])
    assert "(no mask)" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["photo.png"]


def test_commands(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    Image.fromarray(picture(40, 30)).save("other.png")
    lines = ["/save a.json", "x", "/save a.json", "/save a.txt", "/foo", "/new", "/image", "/image no.png"]
    talk(speaking(), folder, [*lines, "/image other.png", "/help", "/quit", "never asked"])
    out, err = capsys.readouterr()
    assert "wrote a.json" in out
    assert (folder / "a.json").stat().st_size > 0
    assert "other.png, 30 x 40 pixels" in out
    assert "What was said is forgotten." in out
    assert "Ctrl-C stops an answer" in out
    for message in ("no answer yet", "'.txt' is unknown", "there is no /foo", "name the image", "no.png"):
        assert message in err
    assert "Traceback" not in err


def test_interruptions(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    segmenter = speaking()
    ask = type(segmenter.open(picture())).ask
    calls = []

    def stopped(self: Any, question: str, **options: Any) -> Any:
        calls.append(question)
        if question == "stop":
            raise KeyboardInterrupt
        return ask(self, question, **options)

    monkeypatch.setattr("modified_lisa.inference.session.Session.ask", stopped)
    talk(segmenter, folder, ["stop", "x", KeyboardInterrupt, "never asked"])
    assert calls == ["stop", "x"]
    assert "this question is forgotten" in capsys.readouterr().out


def test_a_model_without_words_segments(folder: Path, capsys: Any) -> None:
    checkpoint = str(tiny_model().save_pretrained(folder / "model"))
    command = ["chat", str(folder / "photo.png"), "--checkpoint", checkpoint, "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "modified_lisa.apps.cli", *command, "--out_dir", str(folder / "drawn")],
        input="the red one\n",
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0
    assert "answers with a mask, not in words" in done.stdout
    assert "mask 1: score" in done.stdout
    assert (folder / "drawn" / "photo_answer_1.png").exists()
    assert done.stderr == ""


def test_refusals_before_the_model_loads(folder: Path, capsys: Any) -> None:
    photo = str(folder / "photo.png")
    for command, message in (
        (["nothing.png"], "nothing.png"),
        ([photo, "--out_dir", photo], "name a folder"),
        ([photo, "--max_new_tokens", "0"], "at least 1"),
        ([photo, "--threshold", "nan"], "finite"),
    ):
        assert cli.main(["chat", *command]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err


def test_a_terminal(folder: Path) -> None:
    """A prompt, colours, and Ctrl-D: exit status 0 and no traceback."""
    model = speaking().model
    checkpoint = str(model.save_pretrained(folder / "model"))
    mine, theirs = pty.openpty()
    command = ["chat", str(folder / "photo.png"), "--checkpoint", checkpoint, "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "modified_lisa.apps.cli", *command, "--max_new_tokens", "5"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)

    def until(mark: str) -> str:
        text, end = "", time.monotonic() + 120
        while mark not in text:
            assert time.monotonic() < end, text
            if select.select([mine], [], [], 1)[0]:
                text += os.read(mine, 4096).decode(errors="replace")
        return text

    try:
        until("> ")
        os.write(mine, b"all that is not round\n")
        answer = until("> ")
        os.write(mine, b"\x04")
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        os.close(mine)
    assert "Traceback" not in answer
    assert "all that is not round" in answer


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_nobody_to_talk_with(folder: Path, monkeypatch: Any, closed: str, capfd: Any) -> None:
    monkeypatch.setattr(sys, closed, None)
    assert cli.main(["chat", str(folder / "photo.png"), "--out_dir", str(folder)]) == 2
    assert "needs its standard input and output" in capfd.readouterr().err


def test_a_line_that_is_no_text_is_refused_and_the_chat_goes_on(folder: Path) -> None:
    checkpoint = tiny_model().save_pretrained(folder / "model")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "modified_lisa.apps.cli",
            "chat",
            "photo.png",
            "--checkpoint",
            str(checkpoint),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        input=b"the tree\n\xff\xfe\nthe rocket\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"wrote ") == 2
    assert b"is not valid text" in done.stderr
