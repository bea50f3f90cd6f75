"""Under which name transformers hands a cache of keys and values to a model, and looks for it in what comes back.

``past_key_values`` up to 5.23, ``cache`` from 5.24. Models there still take the old name, but ``generate`` uses the
new one alone: a model that does not look under it reads every token as if nothing stood before, without an error.
"""

import functools
import inspect
from typing import Any

from modified_lisa.errors import ModelLoadError

__all__ = ["CACHE_NAMES", "cache_name", "given_cache", "returned_cache"]

CACHE_NAMES = ("cache", "past_key_values")
"""Those that are known, the newest first."""


@functools.cache
def cache_name() -> str:
    """The name that the installed transformers uses: the one that its ``generate`` prepares inputs with.

    Raises ModelLoadError for a transformers that uses neither.
    """
    import transformers

    prepare = transformers.GenerationMixin.prepare_inputs_for_generation
    taken = inspect.signature(prepare).parameters
    for name in CACHE_NAMES:
        if name in taken:
            return name
    raise ModelLoadError(
        f"transformers {transformers.__version__} hands a cache to its models under none of the names that this package "
        f"knows ({', '.join(CACHE_NAMES)}); got {', '.join(taken)}. Install a version that pyproject.toml allows"
    )


def given_cache(cache: Any) -> dict[str, Any]:
    """Keyword arguments that hand ``cache`` to a language model, or to ``generate``."""
    return {cache_name(): cache}


def returned_cache(output: Any) -> Any:
    """The cache in the output of a language model, or of ``generate``."""
    return getattr(output, cache_name())
