"""One door to all kinds of data sets."""

import os
from typing import TypeAlias

from modified_lisa.data.reasonseg import ReasonSegDataset
from modified_lisa.data.refcoco import REFCOCO, RefCocoDataset
from modified_lisa.errors import ConfigError

__all__ = ["PROTOCOLS", "DataSet", "open_dataset"]

DataSet: TypeAlias = ReasonSegDataset | RefCocoDataset

PROTOCOLS = {
    "reasonseg": "the first text of each annotation",
    **dict.fromkeys(REFCOCO, "each sentence of each reference"),
}
"""{kind of data set: which samples are measured, in words}."""


def open_dataset(
    root: str | os.PathLike[str],
    split: str,
    *,
    dataset: str = "reasonseg",
    split_by: str | None = None,
    images_dir: str | os.PathLike[str] | None = None,
    every_text: bool | None = False,
    max_samples: int | None = None,
    skip_bad_samples: bool = False,
) -> DataSet:
    """One split; by default, with the samples that are measured.

    Args:
        root: what ``--data_dir`` names.
        dataset: ``reasonseg`` (`ReasonSegDataset`) or one of `REFCOCO` (`RefCocoDataset`).
        split_by, images_dir: for the latter only; see there.
        every_text: for ReasonSeg only; the others make a sample of each sentence in any case.

    Raises:
        ConfigError: no such kind, or an argument that does not go with it.
        DataError: see the two classes.
    """
    if dataset not in PROTOCOLS:
        raise ConfigError(f"--dataset is {dataset!r}; one of {', '.join(PROTOCOLS)} is expected")
    if dataset != "reasonseg":
        return RefCocoDataset(
            root,
            dataset,
            split,
            split_by=split_by,
            images_dir=images_dir,
            max_samples=max_samples,
            skip_bad_samples=skip_bad_samples,
        )
    for flag, value in (("--split_by", split_by), ("--images_dir", images_dir)):
        if value is not None:
            raise ConfigError(
                f"{flag} goes with --dataset {' or '.join(REFCOCO)}; leave it out for reasonseg"
            )
    return ReasonSegDataset(
        root, split, max_samples=max_samples, every_text=every_text, skip_bad_samples=skip_bad_samples
    )
