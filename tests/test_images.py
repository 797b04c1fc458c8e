"""Images are read as viewers show them, or it is said why not: by pixels, sizes, names, folders and versions."""

import hashlib
import io
import json
import os
import shlex
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import Bench
from click.testing import CliRunner
from PIL import Image, ImageOps
from test_datasets import Files, of_images, picture, pictures, throw, use_torchvision, write_archive, write_folder

from ablation.cli import main
from ablation.code import CodeFolders
from ablation.datasets import Dataset, describe, prepare, remark_on_root
from ablation.datasets.image_files import state_of
from ablation.errors import DataInvalid, DataUnavailable, StudyChanged
from ablation.records import DataSettings
from ablation.report import report_text
from ablation.study import load_study

ATTEMPTS = pytest.mark.parametrize("attempt", [describe, prepare])
ORIENTATION = 0x0112


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "data"


@pytest.fixture
def read(tmp_path: Path, cache: Path) -> Callable[..., Dataset]:
    """Prepare files as a folder; a plan must say of them what a study then finds."""
    folders: Iterator[Path] = (tmp_path / f"photos-{number}" for number in range(99))

    def read_files(files: Files, **settings: Any) -> Dataset:
        source = replace(of_images(write_folder(next(folders), files)), **settings)
        outline = describe(source, cache=cache)
        dataset = prepare(source, cache=cache)
        assert (outline.shape, outline.notes) == (dataset.facts.shape, dataset.facts.notes)
        assert (outline.train_images, outline.test_images) == (dataset.facts.train_images, dataset.facts.test_images)
        return dataset

    return read_files


def pixels_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


def saved(image: Image.Image, suffix: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=suffix, **options)
    return buffer.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: bytes, *, width: int, bits: int, color: int, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Write a PNG of one row, with other chunks before and behind its pixels."""
    head = struct.pack(">IIBBBBB", width, 1, bits, color, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + behind + chunk(b"IEND", b"")


def tiff_of_deep_color() -> bytes:
    """Write a TIFF of 6x4 pixels with three samples of 16 bits, uncompressed."""
    bits, data = struct.pack("<HHH", 16, 16, 16), bytes(6 * 4 * 3 * 2)
    start = 8 + 2 + 12 * 9 + 4
    tags = [(256, 3, 1, 6), (257, 3, 1, 4), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, start + 6)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 4), (279, 4, 1, len(data))]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + bits + data


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize(
        ("suffix", "options"),
        [
            ("jpeg", {"quality": 95}),
            ("png", {}),
            ("webp", {"lossless": True}),
            ("tiff", {}),
            ("tiff", {"compression": "tiff_lzw"}),
        ],
    )
    def test_it_is_applied_as_viewers_do(
        self, read: Callable[..., Dataset], orientation: int, suffix: str, options: dict[str, Any]
    ) -> None:
        image = Image.fromarray(pixels_of(picture(3, size=(6, 4))))
        content = saved(image, suffix, exif=oriented(orientation), **options)
        with Image.open(io.BytesIO(content)) as opened:
            upright = np.asarray(ImageOps.exif_transpose(opened))

        dataset = read({**pictures(size=(upright.shape[1], upright.shape[0])), f"train/cat/!.{suffix}": content})

        assert (upright == dataset.train_images[0]).all()

    def test_sizes_are_compared_after_it_and_it_is_said(self, read: Callable[..., Dataset]) -> None:
        lying = saved(Image.new("RGB", (6, 4)), exif=oriented(6))

        dataset = read({**pictures(size=(4, 6)), "train/cat/0.png": lying, "test/dog/1.png": lying})

        assert ("2 images turned upright, as the EXIF orientation says",) == dataset.facts.notes

    def test_that_behind_the_pixels_of_a_png_is_found(self, read: Callable[..., Dataset]) -> None:
        late = chunk(b"eXIf", oriented(3).tobytes()[6:])
        content = png(bytes([1, 2, 3, 4]), width=4, bits=8, color=0, behind=late)

        dataset = read({**pictures(size=(4, 1), mode="L"), "train/cat/0.png": content})

        assert [4, 3, 2, 1] == dataset.train_images[0].flatten().tolist()
        assert ("1 image turned upright, as the EXIF orientation says",) == dataset.facts.notes

    @pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", oriented(9).tobytes()])
    def test_what_cannot_be_read_of_it_counts_as_none(self, read: Callable[..., Dataset], exif: bytes) -> None:
        content = saved(Image.new("RGB", (6, 4)), "jpeg", exif=exif)

        dataset = read({**pictures(), "train/cat/0.jpg": content})

        assert () == dataset.facts.notes


BITS = {1: b"\x80", 2: b"\x40", 4: b"\x10"}
"""Rows of a gray PNG of two pixels, 1 and 0, by its bits per pixel."""


def half_transparent() -> list[Any]:
    """Return images whose left pixel is seen through, with what their right pixel is."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    gray, color = (Image.fromarray(np.array([pixels], dtype=np.uint8)) for pixels in ([7, 9], [[1, 2, 3], [4, 5, 6]]))
    alpha, gray_alpha = (
        Image.fromarray(np.array([pixels], dtype=np.uint8))
        for pixels in ([[1, 2, 3, 0], [4, 5, 6, 255]], [[7, 0], [9, 255]])
    )
    transparent_one = chunk(b"tRNS", b"\0\1")
    return [
        pytest.param(saved(alpha), [4, 5, 6], id="RGBA"),
        pytest.param(saved(alpha, "webp", lossless=True, exact=True), [4, 5, 6], id="WebP"),
        pytest.param(saved(alpha, "tiff"), [4, 5, 6], id="TIFF"),
        pytest.param(saved(gray_alpha), [9], id="LA"),
        pytest.param(saved(palette, transparency=bytes([0, 255])), [40, 50, 60], id="P"),
        pytest.param(saved(palette, transparency=0), [40, 50, 60], id="P, one color"),
        pytest.param(saved(gray, transparency=7), [9], id="L, one gray"),
        pytest.param(saved(color, transparency=(1, 2, 3)), [4, 5, 6], id="RGB, one color"),
        *(
            pytest.param(png(row, width=2, bits=bits, color=0, before=transparent_one), [0], id=f"{bits} bits")
            for bits, row in BITS.items()
        ),
    ]


class TestTransparency:
    @pytest.mark.parametrize(("content", "pixel"), half_transparent())
    def test_it_is_laid_over_white_and_gray_stays_gray(
        self, read: Callable[..., Dataset], content: bytes, pixel: list[int]
    ) -> None:
        files = {**pictures(size=(2, 1), mode="L"), "train/cat/!.png": content}
        named = {name.replace("png", "webp") if value[:4] == b"RIFF" else name: value for name, value in files.items()}

        dataset = read(named)

        assert [[255] * len(pixel), pixel] == dataset.train_images[0][0].tolist()
        assert ("1 image with an alpha channel or a transparent color, laid over white",) == dataset.facts.notes

    def test_what_is_partly_seen_through_is_mixed_with_white(self, read: Callable[..., Dataset]) -> None:
        shades = Image.fromarray(np.array([[[0, 0, 0, alpha] for alpha in (0, 51, 102, 255)]], dtype=np.uint8))

        dataset = read({**pictures(size=(4, 1)), "train/cat/0.png": saved(shades)})

        assert [255, 204, 153, 0] == dataset.train_images[0][0, :, 0].tolist()

    @pytest.mark.parametrize(("plain", "alpha"), [("L", "LA"), ("RGB", "RGBA")])
    def test_an_alpha_channel_that_hides_nothing_changes_no_bit(
        self, read: Callable[..., Dataset], plain: str, alpha: str
    ) -> None:
        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        image = Image.fromarray(values if plain == "L" else np.stack([values, values.T, 255 - values], axis=-1))
        others = pictures(size=(16, 16), mode=plain)

        without = read({**others, "train/cat/0.png": saved(image)})
        opaque = read({**others, "train/cat/0.png": saved(image.convert(alpha))})

        assert without.facts.digest == opaque.facts.digest


class TestDepth:
    @ATTEMPTS
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("9.png", png(bytes(12), width=6, bits=16, color=0)),
            ("9.png", png(bytes(36), width=6, bits=16, color=2)),
            ("9.png", png(bytes(24), width=6, bits=16, color=4)),
            ("9.png", png(bytes(48), width=6, bits=16, color=6)),
            ("9.ppm", b"P6 6 4 65535\n" + bytes(144)),
            ("9.ppm", b"P6 6 4 1023\n" + bytes(144)),
            ("9.pnm", b"P3 1 1 1023\n1 2 3\n"),
            ("9.pgm", b"P5 6 4 65535\n" + bytes(48)),
            ("9.tiff", tiff_of_deep_color()),
        ],
    )
    def test_more_than_8_bits_are_refused_of_gray_and_of_color(
        self, tmp_path: Path, cache: Path, attempt: Callable[..., object], name: str, content: bytes
    ) -> None:
        source = of_images(write_folder(tmp_path / "photos", {**pictures(), f"train/cat/{name}": content}))

        with pytest.raises(DataInvalid, match=rf"train/cat/{name} has more than 8 bits per channel"):
            attempt(source, cache=cache)

    def test_fewer_are_spread_over_the_whole_range(self, read: Callable[..., Dataset]) -> None:
        dataset = read({**pictures(size=(1, 1)), "train/cat/!.ppm": b"P6 1 1 15\n\x00\x08\x0f"})

        assert [0, 136, 255] == dataset.train_images[0].flatten().tolist()


class TestFiles:
    @pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jpe", "jfif", "jif", "JPE", "Jfif"])
    def test_every_suffix_of_jpeg_is_read(self, read: Callable[..., Dataset], suffix: str) -> None:
        dataset = read({**pictures(), f"train/cat/9.{suffix}": picture(9, suffix="jpeg")})

        assert (7, ()) == (dataset.facts.train_images, dataset.facts.notes)

    def test_what_is_passed_over_is_counted_by_suffix(self, read: Callable[..., Dataset]) -> None:
        names = ["train/cat/9.GIF", "train/dog/9.gif", "test/cat/9.gif", "train/cat/9.avif", "train/labels.txt"]
        names += ["test/dog/Thumbs.db", "test/dog/LICENSE", "train/cat/.hidden.gif", "README.md"]

        dataset = read({**pictures(), **dict.fromkeys(names, b"x")})

        (note,) = dataset.facts.notes
        assert "7 files passed over: 3 .gif, 1 .avif, 1 .db, 1 .txt, 1 without a suffix" == note

    def test_where_a_class_has_none_left_it_is_said_what_was_passed_over(self, tmp_path: Path, cache: Path) -> None:
        gifs = {"train/dog/0.gif": b"x", "test/dog/0.gif": b"x"}
        source = of_images(write_folder(tmp_path / "photos", {**pictures(classes=["cat"]), **gifs}))

        with pytest.raises(DataInvalid, match=r"(?s)2 files passed over: 2 \.gif; what is read ends in .*'dog' has no"):
            describe(source, cache=cache)

    @pytest.mark.parametrize("suffix", ["png", "webp"])
    def test_of_several_frames_the_first_is_used_and_it_is_said(
        self, read: Callable[..., Dataset], suffix: str
    ) -> None:
        frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
        moving = saved(frames[0], suffix, save_all=True, append_images=frames[1:], **LOSSLESS[suffix])

        dataset = read({**pictures(), f"train/cat/!.{suffix}": moving})

        assert {(255, 0, 0)} == {tuple(pixel) for pixel in dataset.train_images[0].reshape(-1, 3).tolist()}
        assert ("1 image of several frames, of which the first is used",) == dataset.facts.notes

    def test_a_photograph_with_its_preview_is_one_image(self, read: Callable[..., Dataset]) -> None:
        frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]

        content = saved(frames[0], "mpo", save_all=True, append_images=frames[1:])

        dataset = read({**pictures(), "train/cat/!.jpg": content})

        assert () == dataset.facts.notes
        assert dataset.train_images[0][0, 0, 0] > 250

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
    def test_other_color_spaces_become_rgb(self, read: Callable[..., Dataset], mode: str) -> None:
        red = saved(Image.new("RGB", (6, 4), (200, 30, 40)).convert(mode), "jpeg", quality=100)

        dataset = read({**pictures(), "train/cat/!.jpg": red})

        assert np.abs(dataset.train_images[0].astype(int) - [200, 30, 40]).max() <= 3

    @ATTEMPTS
    def test_a_header_that_cannot_be_read_is_said_before_a_study_begins(
        self, tmp_path: Path, cache: Path, attempt: Callable[..., object]
    ) -> None:
        source = of_images(write_folder(tmp_path / "photos", {**pictures(), "test/dog/2.png": b"no picture"}))

        with pytest.raises(DataInvalid, match=r"test/dog/2\.png is not an image of a known format"):
            attempt(source, cache=cache)

    def test_a_class_of_unreadable_images_is_not_said_to_have_none(self, tmp_path: Path, cache: Path) -> None:
        files = {name: b"no picture" if name.startswith("test/dog") else value for name, value in pictures().items()}

        with pytest.raises(DataInvalid) as caught:
            describe(of_images(write_folder(tmp_path / "photos", files)), cache=cache)

        assert 3 == str(caught.value).count("is not an image of a known format")
        assert "has no images" not in str(caught.value)


LOSSLESS: dict[str, dict[str, Any]] = {"png": {}, "webp": {"lossless": True}}
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


class TestNames:
    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    def test_a_name_composed_in_one_split_and_decomposed_in_the_other_is_one_class(
        self, tmp_path: Path, cache: Path, pack: Callable[..., Path]
    ) -> None:
        named = pictures(classes=[COMPOSED, "zoo"])
        mixed = {name.replace(f"test/{COMPOSED}", f"test/{DECOMPOSED}"): value for name, value in named.items()}

        alike = prepare(of_images(pack(tmp_path / "alike.tar", named)), cache=cache)
        other = prepare(of_images(pack(tmp_path / "mixed.tar", mixed)), cache=cache)

        assert (COMPOSED, "zoo") == other.facts.shape.classes
        assert alike.facts.digest == other.facts.digest

    @ATTEMPTS
    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    def test_both_in_one_split_are_refused(
        self, tmp_path: Path, cache: Path, attempt: Callable[..., object], pack: Callable[..., Path]
    ) -> None:
        source = of_images(pack(tmp_path / "a.tar", pictures(classes=[COMPOSED, DECOMPOSED, "zoo"])))

        with pytest.raises(DataInvalid, match=r"train has two folders.*'cafe\\u0301' and 'caf\\xe9'"):
            attempt(source, cache=cache)

    def test_a_name_that_is_the_same_in_both_splits_stays_as_it_is(self, read: Callable[..., Dataset]) -> None:
        assert (DECOMPOSED, "zoo") == read(pictures(classes=[DECOMPOSED, "zoo"])).facts.shape.classes

    @ATTEMPTS
    def test_a_class_that_is_not_utf8_is_refused_once_and_shown_escaped(
        self, tmp_path: Path, cache: Path, attempt: Callable[..., object]
    ) -> None:
        source = of_images(write_folder(tmp_path / "photos", pictures(classes=[os.fsdecode(b"caf\xe9"), "zoo"])))

        with pytest.raises(DataInvalid) as caught:
            attempt(source, cache=cache)

        _, said = str(caught.value).splitlines()
        assert said.startswith(
            r"  class 'caf\xe9' has a name that is not UTF-8; rename its folders, or convert all names"
        )

    def test_a_file_that_is_not_utf8_is_read_and_shown_escaped(
        self, tmp_path: Path, cache: Path, read: Callable[..., Dataset]
    ) -> None:
        name = os.fsdecode(b"train/cat/caf\xe9.png")
        read({**pictures(), name: picture(9)})

        with pytest.raises(DataInvalid, match=r"'train/cat/caf\\xe9\.png' is not an image"):
            prepare(of_images(write_folder(tmp_path / "broken", {**pictures(), name: b"x"})), cache=cache)

    def test_control_characters_of_a_class_reach_no_report(self, bench: Bench, tmp_path: Path) -> None:
        write_folder(tmp_path / "data", pictures(size=(4, 4), classes=["a\nb", "c\x1b[31md"]))

        outcome = bench.run(study_in(tmp_path))

        assert outcome.analysis is not None
        assert ("a\nb", "c\x1b[31md") == outcome.analysis.data.classes
        assert "\x1b" not in report_text(outcome.analysis, "markdown") + report_text(outcome.analysis, "json")


class TestLinks:
    def test_the_way_out_that_is_told_leads_out(self, tmp_path: Path, cache: Path) -> None:
        store = write_folder(tmp_path / "store", {f"{index:032x}": picture(index) for index in range(12)})
        folder = tmp_path / "my photos"
        for index, name in enumerate(pictures()):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(store / f"{index:032x}")

        with pytest.raises(DataInvalid) as caught:
            describe(of_images(folder), cache=cache)

        assert f"12 of 12 files are links to {store}, outside the folder: test/cat/0.png, " in str(caught.value)
        told = [part for part in str(caught.value).split("`") if part.startswith("cp ")]
        for number, command in enumerate(told):
            words = [str(tmp_path / f"copy-{number}") if word == "COPY" else word for word in shlex.split(command)]
            subprocess.run(words, check=True)
            assert 6 == prepare(of_images(Path(words[-1])), cache=cache).facts.train_images
        assert 2 == len(told)

    def test_a_broken_link_is_called_so(self, tmp_path: Path, cache: Path) -> None:
        folder = write_folder(tmp_path / "photos", pictures())
        (folder / "train/cat/9.png").symlink_to("gone.png")

        with pytest.raises(DataInvalid, match=r"1 of 13 files is a link to what is not there: train/cat/9\.png"):
            describe(of_images(folder), cache=cache)

    @pytest.mark.parametrize("name", ["train", "train/cat/9.png", "train/elk"])
    def test_one_that_leads_to_itself_is_called_broken(self, tmp_path: Path, cache: Path, name: str) -> None:
        folder = write_folder(tmp_path / "photos", pictures() if "/" in name else {"test/cat/0.png": picture(1)})
        (folder / name).symlink_to(Path(name).name)

        with pytest.raises(DataInvalid, match=f"is a link to what is not there: {name}"):
            describe(of_images(folder), cache=cache)

    def test_one_beside_the_data_that_leads_to_itself_does_no_harm(self, tmp_path: Path, cache: Path) -> None:
        folder = write_folder(tmp_path / "photos", pictures())
        (folder / "again").symlink_to("again")

        assert 6 == prepare(of_images(folder), cache=cache).facts.train_images

    def test_a_root_that_leads_to_itself_is_no_folder(self, tmp_path: Path, cache: Path) -> None:
        (tmp_path / "again").symlink_to("again")

        with pytest.raises(DataUnavailable, match=f"there is no folder or archive {tmp_path}/again"):
            describe(of_images(tmp_path / "again"), cache=cache)


def without(split: str, *, instead: str, top: str = "") -> dict[str, bytes]:
    return {top + name.replace(f"{split}/", instead): value for name, value in pictures().items()}


class TestLayout:
    @ATTEMPTS
    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    @pytest.mark.parametrize(
        ("files", "said"),
        [
            (without("test", instead="val/"), r"no images in test/<class>/; there is val/: rename it test where"),
            (without("test", instead="valid/", top="pets/"), r"no images in test/<class>/; there is valid/: rename it"),
            (without("test", instead="Validation/"), r"there is Validation/: rename it test where"),
            (
                without("train", instead="training/"),
                r"no images in train/<class>/; there is training/: rename it train",
            ),
            (
                {name.title().replace(".Png", ".png"): value for name, value in pictures().items()},
                "it has no images in train/<class>/ and test/<class>/; there is Train/: rename it train; there is "
                "Test/: rename it test",
            ),
            (
                {f"pets/{name.title()}": value for name, value in pictures().items()},
                "there is Train/: rename it train; there is Test/: rename it test",
            ),
            (
                {name.removeprefix("train/").removeprefix("test/"): value for name, value in pictures().items()},
                r"but the folders cat/, dog/\. Where these are the classes, split them first",
            ),
            (
                {"images/0.png": picture(0), "train.txt": b"0", "test.txt": b"1"},
                r"but test\.txt, train\.txt: copy or hard-link the files that such a list names to train/<class>/",
            ),
            (without("test", instead="more/"), r"no images in test/<class>/; beside it there are more/"),
        ],
    )
    def test_what_is_there_instead_is_named_with_what_to_do(
        self,
        tmp_path: Path,
        cache: Path,
        attempt: Callable[..., object],
        pack: Callable[..., Path],
        files: dict[str, bytes],
        said: str,
    ) -> None:
        with pytest.raises(DataInvalid, match=said):
            attempt(of_images(pack(tmp_path / "data.tar", files)), cache=cache)

    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    @pytest.mark.parametrize("top", ["", "pets/"])
    def test_a_validation_folder_beside_both_is_said_not_to_be_read(
        self, tmp_path: Path, cache: Path, pack: Callable[..., Path], top: str
    ) -> None:
        files = {f"{top}{name}": value for name, value in {**pictures(), "val/cat/0.png": picture(1)}.items()}

        dataset = prepare(of_images(pack(tmp_path / "data.tar", files)), cache=cache)

        assert ("val/ is not read: validation is drawn from train",) == dataset.facts.notes


class TestSize:
    @pytest.mark.parametrize(
        ("size", "given", "scaled", "cut"),
        [
            (4, (16, 8), (8, 4), (2, 0, 6, 4)),
            (4, (8, 16), (4, 8), (0, 2, 4, 6)),
            (6, (3, 5), (6, 10), (0, 2, 6, 8)),
            ([2, 3], (6, 8), (3, 4), (0, 1, 3, 3)),
            ([2, 3], (14, 4), (7, 2), (2, 0, 5, 2)),
        ],
    )
    def test_it_is_covered_with_proportions_kept_and_the_center_cut_out(
        self, read: Callable[..., Dataset], size: Any, given: tuple[int, int], scaled: tuple[int, int], cut: Any
    ) -> None:
        content = picture(4, size=given)

        dataset = read({**pictures(size=(7, 9)), "train/cat/!.png": content}, size=size)

        with Image.open(io.BytesIO(content)) as image:
            expected = image.resize(scaled, Image.Resampling.BILINEAR).crop(cut)
        assert np.abs(np.asarray(expected).astype(int) - dataset.train_images[0]).max() <= 1

    def test_scaling_down_takes_the_mean_of_what_it_joins(self, read: Callable[..., Dataset]) -> None:
        checks = np.indices((64, 64)).sum(axis=0).astype(np.uint8) % 2 * 200

        dataset = read({**pictures(mode="L"), "train/cat/0.png": saved(Image.fromarray(checks))}, size=4)

        assert set(dataset.train_images[0].flatten().tolist()) <= {99, 100, 101}

    def test_images_that_have_it_are_not_touched(self, read: Callable[..., Dataset]) -> None:
        assert read(pictures(size=(6, 6)), size=6).facts.digest == read(pictures(size=(6, 6))).facts.digest

    def test_it_counts_after_the_orientation(self, read: Callable[..., Dataset]) -> None:
        lying = np.zeros((4, 8, 3), dtype=np.uint8)
        lying[:, :4] = 250
        content = saved(Image.fromarray(lying), exif=oriented(6))

        dataset = read({**pictures(), "train/cat/0.png": content}, size=(8, 4))

        assert [250, 0] == dataset.train_images[0][[0, 7], 0, 0].tolist()

    @ATTEMPTS
    def test_without_it_the_sizes_are_named_with_the_ways_out(
        self, tmp_path: Path, cache: Path, attempt: Callable[..., object]
    ) -> None:
        odd = {"test/cat/0.png": picture(0, size=(9, 7)), "test/dog/0.png": picture(0, size=(2, 2))}
        files = {**pictures(size=(6, 4)), **odd}

        with pytest.raises(DataInvalid) as caught:
            attempt(of_images(write_folder(tmp_path / "photos", files)), cache=cache)

        said = str(caught.value)
        assert "of 3 sizes, and all must be alike: train/cat/0.png is 6x4, test/cat/0.png is 9x7." in said
        assert all(way in said for way in ("`size: 64`", "@ data.size", "resize the files", "docs/extending.md"))

    def test_another_size_is_read_anew(self, tmp_path: Path, cache: Path) -> None:
        source = of_images(write_folder(tmp_path / "photos", pictures()))

        sizes = [prepare(replace(source, size=size), cache=cache).train_images.shape[1:3] for size in (3, 5, 3)]

        assert [(3, 3), (5, 5), (3, 3)] == sizes


class TestEarlierVersions:
    @pytest.mark.parametrize(
        ("mode", "digest"),
        [
            ("RGB", "b62bab80e7a88a0474cf02a8c2af3e27f77f1d18cbe15943270b6c514ed4b147"),
            ("L", "2b2372301d403b104b8444fe9866934fef5d6cf4ffdb9aa70a474f364d9458e8"),
        ],
    )
    def test_images_without_orientation_and_transparency_are_the_data_they_were(
        self, read: Callable[..., Dataset], mode: str, digest: str
    ) -> None:
        assert digest == read(pictures(mode=mode)).facts.digest

    def test_what_they_prepared_is_not_used_unseen(self, tmp_path: Path, cache: Path) -> None:
        plain = {**pictures(size=(4, 4)), "train/cat/0.png": saved(Image.fromarray(PLAIN))}
        folder = write_folder(tmp_path / "photos", {**plain, "train/cat/0.png": TURNED})
        ignored = prepare(of_images(write_folder(tmp_path / "plain", plain)), cache=cache)
        key = hashlib.sha256(f"images 1 {state_of(folder.resolve())}".encode()).hexdigest()
        record = {"source": str(folder), "folder": ignored.folder.name, "digest": ignored.facts.digest}
        (cache / "sources" / f"{key}.json").write_text(json.dumps(record))

        dataset = prepare(of_images(folder), cache=cache)

        assert (np.rot90(PLAIN, -1) == dataset.train_images[0]).all()

    def test_a_study_on_images_that_are_read_otherwise_now_is_told_how(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_folder(tmp_path / "data", {**pictures(size=(4, 4)), "train/cat/0.png": TURNED})
        study = study_in(tmp_path)
        with monkeypatch.context() as earlier:
            earlier.setattr("ablation.datasets.image_decoding._orientation", lambda _: 1)
            bench.run(study)
        for record in (bench.state.data / "sources").iterdir():
            record.unlink()

        with pytest.raises(StudyChanged) as caught:
            bench.run(study)

        said = "data as it is read: 'no remarks' -> '1 image turned upright, as the EXIF orientation says'"
        assert said in str(caught.value)
        assert "data.digest: " in str(caught.value)


PLAIN = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
TURNED = saved(Image.fromarray(PLAIN), exif=oriented(6))
STUDY = """\
name: photos
data: {name: images, root: data, validation: 0.5}
model: {name: cnn, depth: 1, width: 2, dense: [], normalization: none}
training: {epochs: 1, batch_size: 4}
factors: {model.activation: [relu, tanh]}
seeds: 1
"""


def study_in(folder: Path, text: str = STUDY) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(text)
    return load_study(folder / "study.yaml")


FILES = {**pictures(size=(4, 4)), "train/cat/9.gif": b"x"}
NOTE = "1 file passed over: 1 .gif"


class TestSaid:
    """The counts and the notes, by every command."""

    def test_a_plan_says_how_many_images_each_split_has(self, tmp_path: Path) -> None:
        study_in(tmp_path)
        write_folder(tmp_path / "data", FILES)

        result = CliRunner().invoke(main, ["plan", str(tmp_path / "study.yaml"), "--state-dir", str(tmp_path / "new")])

        assert 0 == result.exit_code, result.output
        assert "images: 3 images to train on, 3 for validation and 6 to test; 2 classes, 4×4×3\n" in result.stdout
        assert f"  {NOTE}\n" in result.stdout

    def test_a_plan_says_it_in_json(self, tmp_path: Path) -> None:
        study_in(tmp_path)
        write_folder(tmp_path / "data", FILES)
        arguments = ["plan", str(tmp_path / "study.yaml"), "--json", "--set", "data.limit=4"]

        result = CliRunner().invoke(main, [*arguments, "--state-dir", str(tmp_path / "state")])

        assert json.loads(result.stdout)["data"] == {
            "name": "images",
            "task": "classification",
            "splits": {"train": 2, "validation": 2, "test": 6},
            "classes": ["cat", "dog"],
            "input_shape": [3, 4, 4],
            "notes": [NOTE],
        }

    def test_a_study_says_what_is_not_read_and_its_report_too(self, bench: Bench, tmp_path: Path) -> None:
        write_folder(tmp_path / "data", FILES)

        outcome = bench.run(study_in(tmp_path))

        assert NOTE in bench.notes
        assert outcome.analysis is not None
        assert f"\n  - {NOTE}\n" in report_text(outcome.analysis, "markdown")

    def test_what_was_prepared_before_is_said_again(self, tmp_path: Path, cache: Path) -> None:
        source = of_images(write_folder(tmp_path / "photos", FILES))

        first, again = prepare(source, cache=cache), prepare(source, cache=cache)

        assert (NOTE,) == first.facts.notes == again.facts.notes == describe(source, cache=cache).notes


class TestRoot:
    """Two folders, as the study file's and the working directory are."""

    @pytest.fixture
    def code(self, tmp_path: Path) -> CodeFolders:
        folders = (tmp_path / "project", tmp_path / "here")
        for folder in folders:
            folder.mkdir()
        return CodeFolders(folders=folders)

    def test_it_is_beside_the_study_file_whatever_the_working_directory_has(
        self, tmp_path: Path, cache: Path, code: CodeFolders
    ) -> None:
        write_folder(tmp_path / "project/data", pictures(per_class=2))
        write_folder(tmp_path / "here/data", pictures(per_class=3))

        assert 4 == prepare(of_images(Path("data")), cache=cache, code=code).facts.train_images

    def test_it_is_in_the_working_directory_where_only_that_has_it(
        self, tmp_path: Path, cache: Path, code: CodeFolders
    ) -> None:
        write_folder(tmp_path / "here/data", pictures(per_class=3))

        assert 6 == prepare(of_images(Path("data")), cache=cache, code=code).facts.train_images

    @ATTEMPTS
    def test_where_neither_has_it_the_first_is_named(
        self, tmp_path: Path, cache: Path, code: CodeFolders, attempt: Callable[..., object]
    ) -> None:
        with pytest.raises(DataUnavailable, match=f"no folder or archive {tmp_path}/project/data; .* @ data.root"):
            attempt(of_images(Path("data")), cache=cache, code=code)

    def test_a_home_folder_that_is_not_there_is_an_error_of_the_user(self, cache: Path) -> None:
        with pytest.raises(DataUnavailable, match=r"no folder ~nobody-of-that-name/data: .* @ data\.root"):
            describe(of_images(Path("~nobody-of-that-name/data")), cache=cache)

    def test_the_download_of_cifar10_is_looked_for_alike(
        self, tmp_path: Path, cache: Path, code: CodeFolders, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "here/data").mkdir()
        use_torchvision(monkeypatch, lambda *_, **__: throw(OSError("offline")))

        with pytest.raises(DataUnavailable, match=f"CIFAR-10 is not in {tmp_path}/here/data"):
            prepare(replace(of_images(Path("data")), name="cifar10"), cache=cache, code=code)

    def test_a_function_gets_the_place_and_what_is_no_path_as_it_stands(
        self, tmp_path: Path, cache: Path, code: CodeFolders
    ) -> None:
        (tmp_path / "project/own.py").write_text(OWN)
        write_folder(tmp_path / "project/data", {"x": b""})
        (tmp_path / "project/again").symlink_to("again")

        for root, given in (
            ("data", str(tmp_path / "project/data")),
            ("again", "again"),
            ("s3://bucket", "s3://bucket"),
        ):
            settings = DataSettings(name="own.py:load", root=root)
            assert (given, "b") == describe(settings, cache=cache, code=code).shape.classes

    @pytest.mark.parametrize(
        ("places", "said"),
        [
            (["project"], None),
            (["here"], "data.root data is not beside the study file; it was found in the working directory: {here}"),
            (
                ["project", "here"],
                "data.root is {project}, beside the study file; the working directory has another: {here}",
            ),
        ],
    )
    def test_where_it_was_found_is_said_where_that_may_surprise(
        self, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[str], said: str | None
    ) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        for place in places:
            write_folder(tmp_path / place / "data", pictures(size=(4, 4)))
        study = study_in(tmp_path / "project")
        options = ["--state-dir", str(tmp_path / "plan")]

        plan = CliRunner().invoke(main, ["plan", str(tmp_path / "project/study.yaml"), "--json", *options])
        bench.run(study)

        found = {place: tmp_path / place / "data" for place in ("project", "here")}
        expected = [] if said is None else [said.format(**found)]
        assert expected == json.loads(plan.stdout)["data"]["notes"]
        assert expected == [note for note in bench.notes if "data.root" in note]

    def test_a_link_to_the_same_place_is_no_other(self, tmp_path: Path, code: CodeFolders) -> None:
        write_folder(tmp_path / "project/data", pictures())
        (tmp_path / "here/data").symlink_to(tmp_path / "project/data")

        assert remark_on_root("data", code.folders) is None


OWN = """\
import numpy as np


def load(root):
    images, labels = np.zeros((2, 1, 1, 1), dtype=np.uint8), np.arange(2)
    return {"train": (images, labels), "test": (images, labels), "classes": [root, "b"]}
"""
