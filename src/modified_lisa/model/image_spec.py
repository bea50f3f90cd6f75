"""How an encoder wants its square image, and where a model's files say so."""

from dataclasses import dataclass

from modified_lisa.errors import ModelLoadError
from modified_lisa.model.sources import not_found

__all__ = ["ImageSpec", "read_image_spec"]


@dataclass(frozen=True)
class ImageSpec:
    """How an encoder wants its square image."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


def read_image_spec(source: str, side: int, interpolation: str, flag: str, name: str) -> ImageSpec:
    """What ``preprocessor_config.json`` of ``source`` says; ModelLoadError, with ``flag`` and ``name``, if it does not."""
    # The settings alone: AutoImageProcessor needs torchvision in some versions of transformers.
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(not_found(name, flag, error, "preprocessor_config.json")) from error
    statistics = settings.get("image_mean"), settings.get("image_std")
    if not all(isinstance(values, list) and len(values) == 3 for values in statistics):
        raise ModelLoadError(
            f"{flag} {name}: its image processor's settings must hold image_mean and image_std, three numbers each"
        )
    mean, std = ((*(float(value) for value in values),) for values in statistics)
    return ImageSpec(side=int(side), mean=mean, std=std, interpolation=interpolation)  # type: ignore[arg-type]
