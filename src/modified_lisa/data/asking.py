"""Queries that a language model cannot read, found before the first sample is measured or learned from."""

from typing import Any

from modified_lisa.data.opening import DataSet
from modified_lisa.errors import ConfigError, DataError

__all__ = ["check_queries"]

SHORT = 100
"""Bytes of a query that no language model is too short for: a token has a byte at least."""
_LISTED = 20


def check_queries(processor: Any, *sets: DataSet) -> None:
    """Refuse data with queries that ``processor`` cannot make prompts of, or leave those samples out.

    Left out where the set was opened with ``skip_bad_samples``, and then among its ``problems``. What shows without a
    model (`check.text_fault`) was found when the set was opened; this is the image's token, and length.

    Raises:
        DataError: one, with all such samples; or a set of which no sample is left.
    """
    faults = []
    for samples in sets:
        found = {
            number: what for number, text in enumerate(samples.texts) if (what := _fault(processor, text))
        }
        named = [f"{samples.names[number]}: {what}" for number, what in found.items()]
        if samples.skips and len(found) < len(samples):
            samples.leave_out(found)
        else:
            faults += named
    if faults:
        more = [f"... and {len(faults) - _LISTED} more"] if len(faults) > _LISTED else []
        listed = "\n  ".join([*faults[:_LISTED], *more])
        raise DataError(
            f"{len(faults)} of the queries cannot be put to this model:\n  {listed}\nRepair these files, or go on "
            "without those samples: --skip_bad_samples (skip_bad_samples=True in Python)"
        )


def _fault(processor: Any, text: str) -> str | None:
    # Tokens of other protocols that stand for something are written in such brackets too.
    if len(text.encode("utf-8")) <= SHORT and processor.image_token not in text and "<" not in text:
        return None
    try:
        processor.encode(text)
    except ConfigError as error:
        return str(error)
    return None
