"""The errors that users of the package can meet.

Every message says what was got, what was expected and what to do about it. The command line prints the
message alone (exit status 2); a traceback there means a bug in this package.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ImageError",
    "ModelLoadError",
    "ModifiedLISAError",
    "QuantizationError",
    "TrainingError",
]


class ModifiedLISAError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(ModifiedLISAError, ValueError):
    """A flag, an option or a combination of them that cannot work."""


class DataError(ModifiedLISAError, ValueError):
    """A data folder, an annotation or a sample that cannot be used."""


class ImageError(ModifiedLISAError, ValueError):
    """Something that is not an image, or an image that cannot be read."""


class CheckpointError(ModifiedLISAError, RuntimeError):
    """A checkpoint that is missing, torn, or does not fit the model."""


class ModelLoadError(ModifiedLISAError, RuntimeError):
    """A VLM or a SAM that cannot be found, or is not of a supported kind."""


class QuantizationError(ModelLoadError):
    """A model in which other layers are quantised than were asked for, or in another way."""


class TrainingError(ModifiedLISAError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""
