"""Reads an image file as a viewer shows it: upright, over white where it is transparent, 8 bits per channel.

PIL applies the EXIF orientation to TIFF only, drops transparency, and cuts 16 bits of color to 8, each in silence.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from ablation.datasets.image_files import Item
from ablation.records import DataShape

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".bmp", ".dib"),
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    *(".png", ".apng"),
    *(".pbm", ".pgm", ".pnm", ".ppm"),
    *(".tif", ".tiff"),
    ".webp",
)
"""Of the formats above, in lower case."""
GRAY_MODES = ("1", "L", "LA")
COLOR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
LARGEST_SIDE = 4096
LARGEST_FILE_MIB = 64
TURNS = (
    "FLIP_LEFT_RIGHT",
    "ROTATE_180",
    "FLIP_TOP_BOTTOM",
    "TRANSPOSE",
    "ROTATE_270",
    "TRANSVERSE",
    "ROTATE_90",
)
"""PIL's names of what sets an image upright whose EXIF orientation is 2, 3, ..., 8."""
FIRST_ON_ITS_SIDE = 5
PNG_SIGNATURE_BYTES = 8
PNG_METADATA = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
GRAY_STEPS = {"L;2": 85, "L;4": 17}
"""What PIL multiplies the pixels of a gray PNG of few bits by."""
BITS_PER_SAMPLE = 258


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of an image before its pixels are decoded; width and height are those of the upright image."""

    width: int
    height: int
    is_gray: bool
    is_turned: bool
    is_transparent: bool
    has_frames: bool


def read_header(item: Item) -> Header:
    """Return what the header of an image says.

    Raises:
        ValueError: it is none that can be used, and why.
    """
    with _opened(item) as image:
        if image.format == "PNG" and "exif" not in image.info and _has_late_metadata(image):
            image.load()
        orientation = _orientation(image)
        width, height = image.size
        is_on_its_side = orientation >= FIRST_ON_ITS_SIDE and image.format != "TIFF"  # whose size PIL has turned
        return Header(
            width=height if is_on_its_side else width,
            height=width if is_on_its_side else height,
            is_gray=image.mode in GRAY_MODES,
            is_turned=orientation > 1,
            is_transparent=image.has_transparency_data,
            has_frames=getattr(image, "is_animated", False) and image.format != "MPO",  # a photograph with its preview
        )


def read_pixels(item: Item, shape: DataShape, *, is_scaled: bool) -> bytes:
    """Return the pixels of an image as uint8 (height, width, channels).

    Scaled, it is made to cover the shape with its proportions kept, and cut out at its center; else it must have the
    shape's size. An image that has the size is not touched.

    Raises:
        ValueError: it is none that can be used, and why.
    """
    from PIL import Image, ImageOps

    with _opened(item) as image:
        _scale_transparent_gray(image)
        image.load()
        orientation = _orientation(image)
        opaque = _over_white(image) if image.has_transparency_data else image
        plain = opaque.convert("L" if shape.channels == 1 else "RGB")
        upright = plain.transpose(Image.Transpose[TURNS[orientation - 2]]) if orientation > 1 else plain
        if not is_scaled and upright.size != (shape.width, shape.height):
            raise ValueError(f"is {upright.width}x{upright.height} now; it was changed while it was read")
        return ImageOps.fit(upright, (shape.width, shape.height), Image.Resampling.BILINEAR).tobytes()


@contextmanager
def bombs_are_errors() -> Iterator[None]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PIL's of odd metadata; what matters is raised
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(item: Item) -> Iterator["Image"]:
    """Open an image whose size and depth can be used; whatever PIL raises of a bad file becomes a ValueError."""
    from PIL import Image, UnidentifiedImageError

    if item.size > LARGEST_FILE_MIB << 20:
        raise ValueError(f"has more than {LARGEST_FILE_MIB} MiB")
    try:
        with item.open() as file, Image.open(file, formats=FORMATS) as image:
            if max(image.size) > LARGEST_SIDE:
                raise ValueError(f"is larger than {LARGEST_SIDE}x{LARGEST_SIDE}")
            if image.mode not in GRAY_MODES + COLOR_MODES or _is_deep(image):
                raise ValueError(f"has more than 8 bits per channel (mode {image.mode}); save it with 8")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"is larger than {LARGEST_SIDE}x{LARGEST_SIDE}") from error
    except UnidentifiedImageError as error:
        raise ValueError("is not an image of a known format") from error
    except (OSError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error) as error:
        raise ValueError(f"cannot be decoded: {error}") from error


def _is_deep(image: "Image") -> bool:
    """Whether a file has more than 8 bits per channel where PIL's mode does not tell, as of color."""
    arguments = _raw_mode(image)
    match image.format:
        case "PNG":
            return str(arguments).endswith(";16B")
        case "PPM":
            return isinstance(arguments, tuple) and arguments[-1] > 255  # the largest value
        case "TIFF":
            bits: tuple[int, ...] = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (1,))
            return max(bits, default=1) > 8
        case _:
            return False


def _raw_mode(image: "Image") -> Any:
    """Return what PIL's decoder is told of the pixels in the file: `RGB;16B`, or several values with that one."""
    tiles: Any = getattr(image, "tile", None)
    return tiles[0][3] if tiles else None


def _orientation(image: "Image") -> int:
    """Return the EXIF orientation, 1 where there is none or nothing can be read from it, as viewers do."""
    from PIL import ExifTags
    from PIL.Image import Image

    try:
        found = Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # that of a PNG would decode it
    except (OSError, SyntaxError, EOFError, LookupError, TypeError, ValueError, ArithmeticError, struct.error):
        return 1
    return found if found in range(1, len(TURNS) + 2) else 1


def _has_late_metadata(image: "Image") -> bool:
    """Whether a PNG has metadata behind its pixels, where PIL finds them only once it has decoded these."""
    file: IO[bytes] | None = getattr(image, "fp", None)
    if file is None:
        return False
    place, is_behind = file.tell(), False
    file.seek(PNG_SIGNATURE_BYTES)
    try:
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if is_behind and kind in PNG_METADATA:
                return True
            is_behind = is_behind or kind == b"IDAT"
            file.seek(length + 4, 1)
        return False
    finally:
        file.seek(place)


def _scale_transparent_gray(image: "Image") -> None:
    """Put the gray that a PNG calls transparent on the scale of its pixels; PIL leaves it on that of the file."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(transparent, int):
        image.info["transparency"] = transparent * GRAY_STEPS.get(str(_raw_mode(image)), 1)


def _over_white(image: "Image") -> "Image":
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))
