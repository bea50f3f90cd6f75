"""``modified-lisa chat``: a dialogue about an image in the terminal. Answers stream; their masks go to PNG files."""

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modified_lisa.errors import ConfigError, ModifiedLISAError
from modified_lisa.files import check_folder
from modified_lisa.images import read_image
from modified_lisa.inference.drawing import PALETTE
from modified_lisa.inference.segmentation import Segmentation, check_output, check_threshold
from modified_lisa.prompts import SEG_TOKEN

__all__ = ["Chat", "run"]

HELP = """\
Write a question and press Enter. Ctrl-C stops an answer; Ctrl-D or /quit ends.
  /image PATH  talk about another image
  /new         forget what was said so far
  /save PATH   write the last answer: .png or .jpg, .json with text and masks, .npz
  /help        this
  /quit        end"""
SEGMENTS_ONLY = (
    "This checkpoint answers with a mask, not in words (it was trained without --ce_weight): "
    "each line is a query, unaware of those before it."
)


def run(arguments: argparse.Namespace, overrides: dict[str, Any]) -> None:
    """Load the model and talk until the input ends."""
    if sys.stdin is None or sys.stdout is None:
        raise ConfigError("a chat needs its standard input and output, and one of them is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # So that a line that is no text is refused like any other bad question.
        sys.stdin.reconfigure(errors="surrogateescape")
    check_folder("--out_dir", arguments.out_dir)
    check_threshold(arguments.threshold)
    if arguments.max_new_tokens < 1:
        raise ConfigError(f"--max_new_tokens is {arguments.max_new_tokens}; it must be at least 1")
    read_image(arguments.image)  # before a model is loaded, which may take minutes
    with _loading():
        from modified_lisa.inference.segmenter import Segmenter

        overrides = {"answers": None, **overrides}  # in words, where the checkpoint can
        segmenter = Segmenter.from_pretrained(
            arguments.checkpoint, device=arguments.device, fast=False, **overrides
        )
    chat = Chat(
        segmenter,
        Path(arguments.out_dir),
        max_new_tokens=arguments.max_new_tokens,
        threshold=arguments.threshold,
    )
    chat.open(arguments.image)
    if not chat.speaks:
        print(SEGMENTS_ONLY)
    chat.talk()


class Chat:
    """The loop, without what is around it.

    Args:
        folder: where the overlays go.
        ask: reads a line; EOFError ends the chat.
    """

    def __init__(
        self,
        segmenter: Any,
        folder: Path,
        *,
        max_new_tokens: int = 256,
        threshold: float = 0.0,
        ask: Callable[[str], str] = input,
    ) -> None:
        self.segmenter, self.folder = segmenter, folder
        self.max_new_tokens, self.threshold = max_new_tokens, threshold
        self.speaks = segmenter.model.answer_head is not None
        self._ask = ask
        self._session: Any = None
        self._path = Path()
        self._last: Segmentation | None = None

    def open(self, path: str) -> None:
        """Talk about this image from now on."""
        image = read_image(path)
        session = self.segmenter.open(image)
        if self._session is not None:
            self._session.close()
        self._session, self._path = session, Path(path)
        height, width = image.shape[:2]
        print(f"{path}, {width} x {height} pixels. Ask about it; /help lists what else there is.")

    def talk(self) -> None:
        """Ask and answer until the input ends, or /quit."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() line editing and a history
        terminal = sys.stdin.isatty()
        while True:
            try:
                line = self._ask("> " if terminal else "").strip()
            except (EOFError, KeyboardInterrupt):
                if terminal:
                    print()
                return
            if line in ("/quit", "/exit"):
                return
            try:
                self._take(line)
            except ModifiedLISAError as error:
                print(f"{error}", file=sys.stderr)
            except KeyboardInterrupt:
                print(" [stopped; this question is forgotten]" if self.speaks else "[stopped]")

    def _take(self, line: str) -> None:
        if not line.startswith("/"):
            if line:
                self._answer(line)
            return
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if command == "/help":
            print(HELP)
        elif command == "/new":
            self._session.forget()
            print("What was said is forgotten.")
        elif command == "/image":
            if not rest:
                raise ConfigError("name the image: /image PATH")
            self.open(os.path.expanduser(rest))
        elif command == "/save":
            self._save(rest)
        else:
            raise ConfigError(f"there is no {command}; /help lists the commands")

    def _save(self, name: str) -> None:
        if not name:
            raise ConfigError("name the file: /save PATH")
        if self._last is None:
            raise ConfigError("there is no answer yet to save")
        path = Path(os.path.expanduser(name))
        check_output(path, self._path)
        try:
            print(f"wrote {self._last.save(path)}")
        except OSError as error:
            raise ConfigError(f"{error.filename or path}: {error.strerror}") from error

    def _answer(self, question: str) -> None:
        if self.speaks:
            found = self._session.ask(
                question,
                on_text=_Painter(),
                max_new_tokens=self.max_new_tokens,
                threshold=self.threshold,
            )
            print("" if found.complete else " …")
            if not found.complete:
                print(f"(cut off after {self.max_new_tokens} tokens; --max_new_tokens allows more)")
        else:
            found = self._session.segment(question, threshold=self.threshold)
        self._last = found
        for number, (score, mask) in enumerate(zip(found.scores, found.masks, strict=True), start=1):
            print(f"mask {number}: score {score:.2f}, covers {mask.mean():.1%} of the image")
        if not len(found):
            print("(no mask)")
            return
        try:
            print(f"wrote {found.save(self._next_path())}")
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}; name another --out_dir") from error

    def _next_path(self) -> Path:
        number = 1
        while (path := self.folder / f"{self._path.stem}_answer_{number}.png").exists():
            number += 1
        return path


class _Painter:
    """Writes text as it comes; on a terminal, each ``<SEG>`` in the colour of its mask."""

    def __init__(self) -> None:
        self._count = 0
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def __call__(self, piece: str) -> None:
        parts = piece.split(SEG_TOKEN)
        text = parts[0]
        for part in parts[1:]:
            red, green, blue = PALETTE[self._count % len(PALETTE)]
            self._count += 1
            mark = f"\x1b[38;2;{red};{green};{blue}m{SEG_TOKEN}\x1b[0m" if self._colours else SEG_TOKEN
            text += mark + part
        sys.stdout.write(text)
        sys.stdout.flush()


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Say that a model is loaded, on a terminal, and unsay it; what a library remarks on is for logs."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    shown = sys.stderr is not None and sys.stderr.isatty()
    if shown:
        print("loading the model …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
