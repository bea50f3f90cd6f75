"""Started by torchrun in test_training_processes.py: a run with the fake model in this process's share.

Usage: training_worker.py FOLDER BATCH_SIZE ACCUMULATION CASE...
Each case is a run of its own, in FOLDER/CASE: starting processes takes longer than all of them.
"CASE in step": as with sharded weights, for which all processes must call the model equally often.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from accelerate import Accelerator

from fake_lisa import FakeLISA, FakeSet, NanLISA
from modified_lisa import company, evaluation
from modified_lisa.config import TrainingConfig
from modified_lisa.errors import DataError, ModifiedLISAError
from modified_lisa.training import loop
from modified_lisa.training.loop import Trainer
from modified_lisa.training.report import make_accelerator


class BadOnOneProcess(FakeSet):
    """A sample that cannot be read, which only one process meets."""

    def __getitem__(self, index: int) -> Any:
        if index == 3:
            raise DataError("train/image_3#0 has gone bad")
        return super().__getitem__(index)


def run(folder: Path, batch_size: str, accumulation: str, case: str) -> None:
    config = TrainingConfig(
        epochs=2,
        batch_size=int(batch_size),
        gradient_accumulation_steps=int(accumulation),
        lr=0.1,
        warmup_steps=2,
        output_dir=f"{folder}/outputs",
        checkpoint_dir=f"{folder}/checkpoints",
        resume="latest",
    )
    accelerator = make_accelerator(config)
    # Different first weights in each process: the run must make them equal.
    model = FakeLISA(seed=accelerator.process_index)
    case, _, in_step = case.partition(" ")
    train: FakeSet = FakeSet(9)  # the last step has one sample, so one of two processes has nothing to do
    if case == "nan":
        model = NanLISA(train[3].target.shape, seed=accelerator.process_index)
    elif case == "bad":
        train = BadOnOneProcess(9)
    try:
        with contextlib.ExitStack() as as_sharded:
            for module in (company, evaluation, loop) if in_step else ():
                as_sharded.enter_context(mock.patch.object(module, "is_sharded", return_value=True))
            Trainer(config, accelerator, model, train, FakeSet(5, "val")).run()
    except ModifiedLISAError as error:
        rank = os.environ.get("RANK", "0")
        (folder / f"error_{rank}.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    accelerator.wait_for_everyone()


def main(root: str, batch_size: str, accumulation: str, *cases: str) -> None:
    for case in cases:
        folder = Path(root, case)
        folder.mkdir(exist_ok=True)
        run(folder, batch_size, accumulation, case)
    accelerator = Accelerator()
    # One process that takes its end of the connection down while the other is still speaking may abort.
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # torch's own threads may abort a process whose interpreter is being taken down on a busy machine; all that is
    # tested has been written.
    sys.stderr.flush()
    os._exit(0)
