"""Data sets are read once, checked, identified by their content and split the same way for a seed in every variant."""

import gzip
import hashlib
import io
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import types
import urllib.error
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from ablation.datasets import Dataset, Split, channel_statistics, describe, make_split, open_dataset, prepare
from ablation.datasets.arrays import write_arrays, write_facts
from ablation.datasets.images import Images
from ablation.errors import DataInvalid, DataUnavailable
from ablation.records import DataFacts, DataOutline, DataSettings, DataShape

DIGITS = DataSettings(name="digits", validation=0.1)
JPEG_ARCHIVE = Path(
    os.environ.get("ABLATION_IMAGE_ARCHIVE", Path(__file__).parents[2] / "shared/data/cifar10-jpeg.tar.gz")
)

Files = Mapping[str, bytes]


def picture(value: int, *, size: tuple[int, int] = (6, 4), mode: str = "RGB", suffix: str = "png") -> bytes:
    """Encode a picture of width x height whose pixels depend on `value`."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    rng = np.random.default_rng(value)
    pixels = rng.integers(0, 256, size=(size[1], size[0], bands), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if bands == 1 else pixels).save(buffer, format=suffix)
    return buffer.getvalue()


def pictures(*, per_class: int = 3, classes: Iterable[str] = ("cat", "dog"), **options: object) -> dict[str, bytes]:
    names = [
        f"{split}/{name}/{index}.png" for split in ("train", "test") for name in classes for index in range(per_class)
    ]
    return {name: picture(value, **options) for value, name in enumerate(names)}


def write_folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_archive(path: Path, files: Files, *, links: Iterable[str] = ()) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return path


def outline_of(dataset: Dataset) -> DataOutline:
    facts = dataset.facts
    return DataOutline(shape=facts.shape, train_images=facts.train_images, test_images=facts.test_images)


def of_images(root: Path) -> DataSettings:
    return DataSettings(name="images", root=str(root))


def with_labels(folder: Path, sizes: list[int]) -> Dataset:
    """Write a data set of 1x1 images with so many training images in each class, shuffled."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train_images": np.zeros((len(labels), 1, 1, 1), dtype=np.uint8),
        "train_labels": labels.astype(np.int64),
        "test_images": np.zeros((len(sizes), 1, 1, 1), dtype=np.uint8),
        "test_labels": np.arange(len(sizes)),
    }
    write_arrays(folder, arrays)
    write_facts(folder, name="made", classes=tuple(f"c{index}" for index in range(len(sizes))), source="made")
    return open_dataset(folder)


def counts_of(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    return np.bincount(dataset.train_labels[indices], minlength=len(dataset.facts.shape.classes))


def as_lists(split: Split) -> tuple[list[int], list[int] | None, list[int]]:
    validation = None if split.validation is None else split.validation.tolist()
    return split.train.tolist(), validation, split.sample.tolist()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "data"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(DIGITS, cache=tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int]], Dataset]:
    root = tmp_path_factory.mktemp("labels")

    def make(sizes: list[int]) -> Dataset:
        folder = root / "-".join(map(str, sizes))
        return open_dataset(folder) if folder.exists() else with_labels(folder, sizes)

    return make


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that images were written to, one for each time that a source was read."""
    folders: list[Path] = []
    write = Images.write

    def counted(self: Images, folder: Path) -> tuple[str, ...]:
        folders.append(folder)
        return write(self, folder)

    monkeypatch.setattr(Images, "write", counted)
    return folders


class TestDigits:
    def test_shape_is_known_without_reading_anything(self, cache):
        shape = describe(DIGITS, cache=cache).shape

        assert DataShape(channels=1, height=32, width=32, classes=tuple("0123456789")) == shape
        assert not cache.exists()

    def test_prepared_digits_have_the_shape_that_was_described(self, digits, cache):
        assert describe(DIGITS, cache=cache) == outline_of(digits)
        assert digits.train_images.shape == (1442, 32, 32, 1)
        assert digits.test_images.shape == (355, 32, 32, 1)
        assert np.uint8 == digits.train_images.dtype
        assert np.int64 == digits.train_labels.dtype

    def test_values_span_the_whole_range(self, digits):
        assert (digits.train_images.min(), digits.train_images.max()) == (0, 255)

    def test_test_is_a_fifth_of_every_class(self, digits):
        train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)

        assert (np.array(test) == (train + test) // 5).all()

    def test_largest_class_share_is_measured_on_test(self, digits):
        assert np.bincount(digits.test_labels).max() / 355 == digits.facts.largest_class_share

    def test_arrays_cannot_be_written_to(self, digits):
        with pytest.raises(ValueError, match="read-only"):
            digits.train_images[0] = 0

    def test_a_worker_opens_what_was_prepared_by_its_path_alone(self, digits):
        opened = pickle.loads(pickle.dumps(open_dataset(digits.folder)))

        assert digits.facts == opened.facts
        assert (digits.test_images == opened.test_images).all()

    def test_folder_is_named_after_the_content(self, digits):
        assert f"digits-{digits.facts.digest[:12]}" == digits.folder.name


class TestImages:
    def test_images_are_ordered_by_class_then_by_file_name(self, tmp_path, cache):
        files = pictures()
        shuffled = dict(sorted(files.items(), key=lambda pair: hashlib.sha256(pair[1]).digest()))

        dataset = prepare(of_images(write_archive(tmp_path / "a.tar.gz", shuffled)), cache=cache)

        names = sorted(name for name in files if name.startswith("train/"))
        expected = [np.asarray(Image.open(io.BytesIO(files[name]))) for name in names]
        assert (np.stack(expected) == dataset.train_images).all()
        assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert dataset.facts.shape.classes == ("cat", "dog")

    @pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar"])
    @pytest.mark.parametrize("top", ["", "pets/", "./", "./pets/"])
    def test_folder_and_archive_give_the_same_digest(self, tmp_path, cache, suffix, top):
        files = {top + name: content for name, content in pictures(per_class=1).items()}
        folder = write_folder(tmp_path / "folder", files)
        archive = write_archive(tmp_path / f"archive.{suffix}", files)

        from_folder = prepare(of_images(folder), cache=cache)
        from_archive = prepare(of_images(archive), cache=tmp_path / "other")

        assert from_folder.facts == from_archive.facts

    def test_digest_is_another_one_with_another_pixel_or_class_name_or_label(self, tmp_path):
        files = pictures(per_class=2)
        repainted = {**files, "test/dog/1.png": picture(99)}
        renamed = {name.replace("dog", "elk"): content for name, content in files.items()}
        relabelled = {**files, "train/dog/0a.png": files["train/cat/1.png"]}
        del relabelled["train/cat/1.png"]

        variants = {"as is": files, "repainted": repainted, "renamed": renamed, "relabelled": relabelled}
        digests = {
            prepare(of_images(write_folder(tmp_path / name, content)), cache=tmp_path / "cache").facts.digest
            for name, content in variants.items()
        }

        assert len(digests) == 4

    def test_described_shape_is_the_prepared_one(self, tmp_path, cache):
        source = of_images(write_archive(tmp_path / "a.tgz", pictures(size=(6, 4))))

        before = describe(source, cache=cache)
        prepared = prepare(source, cache=cache)

        assert DataShape(channels=3, height=4, width=6, classes=("cat", "dog")) == before.shape
        assert outline_of(prepared) == before == describe(source, cache=cache)

    def test_gray_images_keep_one_channel(self, tmp_path, cache):
        source = of_images(write_folder(tmp_path / "gray", pictures(mode="L")))

        assert describe(source, cache=cache).shape.channels == 1
        assert prepare(source, cache=cache).facts.shape.channels == 1

    def test_one_coloured_image_among_gray_ones_makes_all_rgb(self, tmp_path, cache):
        files = {**pictures(mode="L"), "test/dog/2.png": picture(5, mode="RGB")}
        source = of_images(write_folder(tmp_path / "mixed", files))

        assert describe(source, cache=cache).shape.channels == 3
        assert prepare(source, cache=cache).facts.shape.channels == 3

    @pytest.mark.parametrize("suffix", ["bmp", "jpeg", "ppm", "tiff", "webp"])
    def test_images_of_other_formats_are_read(self, tmp_path, cache, suffix):
        files = {name.replace("png", suffix): picture(1, suffix=suffix) for name in pictures()}

        dataset = prepare(of_images(write_folder(tmp_path / "folder", files)), cache=cache)

        assert dataset.facts.train_images == 6

    def test_hidden_and_other_files_are_passed_over(self, tmp_path, cache):
        files = pictures()
        others = {"README.md": b"x", "train/cat/Thumbs.db": b"x", "train/cat/._0.png": b"x", ".git/train/a/b.png": b"x"}

        plain = prepare(of_images(write_archive(tmp_path / "plain.tgz", files)), cache=cache)
        folder = prepare(of_images(write_folder(tmp_path / "folder", {**files, **others})), cache=cache)
        archive = prepare(of_images(write_archive(tmp_path / "a.tgz", {**files, **others})), cache=cache)

        assert plain.facts.digest == folder.facts.digest == archive.facts.digest


class TestUnusableImages:
    def test_a_root_that_is_not_there_is_named_with_what_to_do(self, tmp_path, cache):
        for attempt in (describe, prepare):
            with pytest.raises(DataUnavailable, match=r"no folder or archive .*nowhere; give a folder.*@ data\.root"):
                attempt(of_images(tmp_path / "nowhere"), cache=cache)

    def test_a_file_that_is_no_archive_is_refused(self, tmp_path, cache):
        (tmp_path / "a.zip").write_bytes(b"PK")

        with pytest.raises(DataInvalid, match=r"neither a folder nor one of \.tar\.gz, \.tgz, \.tar"):
            describe(of_images(tmp_path / "a.zip"), cache=cache)

    def test_a_folder_without_images_is_refused(self, tmp_path, cache):
        with pytest.raises(DataInvalid, match="no images in train/<class>/ and test/<class>/"):
            describe(of_images(tmp_path), cache=cache)

    @pytest.mark.parametrize("content", [b"", b"not a picture", picture(0)[:60], picture(0)[:-30]])
    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    def test_an_unreadable_image_is_named(self, tmp_path, cache, content, pack):
        source = of_images(pack(tmp_path / "a.tgz", {**pictures(), "train/dog/1.png": content}))

        with pytest.raises(DataInvalid, match=r"train/dog/1\.png (is not an image|cannot be decoded)"):
            prepare(source, cache=cache)

        assert [path.name for path in cache.iterdir() if path.is_dir() and path.name != "sources"] == []

    def test_all_unreadable_images_are_counted_and_five_named(self, tmp_path, cache):
        files = {**pictures(per_class=8), **{f"train/cat/{index}.png": b"x" for index in range(7)}}

        with pytest.raises(DataInvalid) as caught:
            prepare(of_images(write_folder(tmp_path / "folder", files)), cache=cache)

        assert [f"  train/cat/{index}.png is not an image of a known format" for index in range(5)] == str(
            caught.value
        ).splitlines()[1:-1]
        assert str(caught.value).endswith("and 2 more")

    def test_an_image_of_another_size_is_named_with_both_sizes(self, tmp_path, cache):
        files = {**pictures(size=(6, 4)), "test/cat/0.png": picture(0, size=(4, 6))}

        with pytest.raises(DataInvalid, match=r"of 2 sizes.*: train/cat/0\.png is 6x4, test/cat/0\.png is 4x6\."):
            prepare(of_images(write_folder(tmp_path / "folder", files)), cache=cache)

    @pytest.mark.parametrize("side", [4097, 20_000, 60_000])
    def test_an_oversized_image_is_refused_by_its_header(self, tmp_path, cache, side):
        files = {**pictures(), "train/cat/1.png": png_header(side)}
        source = of_images(write_folder(tmp_path / "folder", files))

        tracemalloc.start()
        with pytest.raises(DataInvalid, match=r"train/cat/1\.png is larger than 4096x4096"):
            prepare(source, cache=cache)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert peak_bytes < 16 << 20

    def test_more_than_8_bits_are_refused_rather_than_clipped(self, tmp_path, cache):
        buffer = io.BytesIO()
        Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(buffer, format="png")
        files = {**pictures(), "train/cat/1.png": buffer.getvalue()}

        with pytest.raises(DataInvalid, match=r"train/cat/1\.png has more than 8 bits"):
            prepare(of_images(write_folder(tmp_path / "folder", files)), cache=cache)

    @pytest.mark.parametrize("attempt", [describe, prepare])
    def test_classes_of_train_and_test_must_agree(self, tmp_path, cache, attempt):
        files = {**pictures(), "train/elk/0.png": picture(1), "test/fox/0.png": picture(2)}

        with pytest.raises(DataInvalid, match=r"(?s)'elk' has no images in test.*'fox' has no images in train"):
            attempt(of_images(write_folder(tmp_path / "folder", files)), cache=cache)

    def test_an_empty_class_is_named(self, tmp_path, cache):
        root = write_folder(tmp_path / "folder", pictures())
        (root / "train" / "elk").mkdir()

        with pytest.raises(DataInvalid, match="class 'elk' has no images in train"):
            describe(of_images(root), cache=cache)

    def test_a_single_class_is_refused(self, tmp_path, cache):
        with pytest.raises(DataInvalid, match="it has 1 classes"):
            prepare(of_images(write_folder(tmp_path / "folder", pictures(classes=["cat"]))), cache=cache)

    @pytest.mark.parametrize("name", ["train/0.png", "train/cat/more/0.png"])
    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    def test_an_image_outside_the_class_folders_is_refused_rather_than_left_out(self, tmp_path, cache, name, pack):
        source = of_images(pack(tmp_path / "a.tgz", {**pictures(), name: picture(1)}))

        with pytest.raises(DataInvalid, match=r"train/0\.png does not lie|train/cat/more"):
            describe(source, cache=cache)

    def test_train_and_test_in_two_places_are_refused(self, tmp_path, cache):
        files = {**pictures(), **{f"copy/{name}": content for name, content in pictures().items()}}

        with pytest.raises(DataInvalid, match=r"more than one folder: \., copy"):
            describe(of_images(write_folder(tmp_path / "folder", files)), cache=cache)

    @pytest.mark.parametrize("name", ["../train/cat/9.png", "train/cat/../../../9.png", "/train/cat/9.png"])
    def test_a_member_that_leads_outside_its_archive_is_refused(self, tmp_path, cache, name):
        source = of_images(write_archive(tmp_path / "a.tar", {**pictures(), name: picture(1)}))

        with pytest.raises(DataInvalid, match="leads outside the archive"):
            prepare(source, cache=cache)

    @pytest.mark.parametrize("name", ["train/cat/9.png", "train/elk"])
    def test_a_link_in_an_archive_is_refused(self, tmp_path, cache, name):
        source = of_images(write_archive(tmp_path / "a.tar", pictures(), links=[name]))

        with pytest.raises(
            DataInvalid, match=rf"1 of 13 files is a link: {name}\. They are not followed in an archive"
        ):
            prepare(source, cache=cache)

    @pytest.mark.parametrize("attempt", [describe, prepare])
    @pytest.mark.parametrize("suffix", ["tar.gz", "tar"])
    @pytest.mark.parametrize("part", [0.2, 0.5, 0.7])
    def test_an_archive_cut_off_is_refused_rather_than_read_in_part(self, tmp_path, cache, attempt, suffix, part):
        archive = write_archive(tmp_path / f"a.{suffix}", pictures(per_class=20))
        content = archive.read_bytes()
        archive.write_bytes(content[: int(len(content) * part)])

        with pytest.raises(DataInvalid, match="the archive is damaged"):
            attempt(of_images(archive), cache=cache)

    def test_a_damaged_header_is_not_taken_for_the_end_of_the_archive(self, tmp_path, cache):
        archive = write_archive(tmp_path / "a.tar", pictures())
        content = bytearray(archive.read_bytes())
        content[content.index(b"train/dog/1.png") + 150] ^= 1
        archive.write_bytes(content)

        with pytest.raises(DataInvalid, match="the archive is damaged: bad checksum"):
            describe(of_images(archive), cache=cache)

    def test_a_flipped_bit_in_a_compressed_archive_is_seen(self, tmp_path, cache):
        plain = write_archive(tmp_path / "a.tar", pictures()).read_bytes()
        packed = bytearray(gzip.compress(plain, compresslevel=0))
        packed[packed.index(b"IDAT") - 20] ^= 1
        (tmp_path / "a.tar.gz").write_bytes(packed)

        with pytest.raises(DataInvalid, match="the archive is damaged: CRC check failed"):
            describe(of_images(tmp_path / "a.tar.gz"), cache=cache)

    def test_names_with_control_characters_are_shown_escaped(self, tmp_path, cache):
        source = of_images(write_archive(tmp_path / "a.tar", {**pictures(), "train/cat/\x1b[2J.png": b"x"}))

        with pytest.raises(DataInvalid, match=r"train/cat/\\x1b\[2J\.png"):
            prepare(source, cache=cache)


class TestCache:
    def test_a_source_is_read_once(self, tmp_path, cache, reads):
        source = of_images(write_archive(tmp_path / "a.tgz", pictures()))

        first, second = prepare(source, cache=cache), prepare(source, cache=cache)

        assert first == second
        assert len(reads) == 1

    def test_concurrent_first_uses_read_the_source_once(self, tmp_path, cache, reads):
        source = of_images(write_archive(tmp_path / "a.tgz", pictures()))

        with ThreadPoolExecutor(8) as pool:
            prepared = list(pool.map(lambda _: prepare(source, cache=cache), range(8)))

        assert [prepared[0]] * 8 == prepared
        assert len(reads) == 1

    def test_processes_that_race_read_the_source_once(self, tmp_path, cache):
        source = of_images(write_archive(tmp_path / "a.tgz", pictures(per_class=200)))
        script = (
            "import sys; from pathlib import Path; from ablation.datasets import prepare;"
            "from ablation.records import DataSettings;"
            f"dataset = prepare({source!r}, cache=Path({str(cache)!r}));"
            "print(dataset.facts.digest, (dataset.folder / 'facts.json').stat().st_ino, dataset.train_images.sum())"
        )

        racers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(6)]
        answers = {racer.communicate()[0] for racer in racers}

        assert len(answers) == 1
        assert b"" not in answers
        assert [f"images-{open_dataset(next(cache.glob('images-*'))).facts.digest[:12]}", "lock", "sources"] == sorted(
            path.name for path in cache.iterdir()
        )

    @pytest.mark.parametrize("name", ["train_images", "train_labels", "test_images", "test_labels"])
    @pytest.mark.parametrize("position", [7, 100, -1])
    def test_a_flipped_byte_is_noticed_and_put_right(self, tmp_path, cache, reads, name, position):
        source = of_images(write_folder(tmp_path / "folder", pictures()))
        path = prepare(source, cache=cache).folder / f"{name}.npy"
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[position] ^= 4
        path.write_bytes(damaged)

        again = prepare(source, cache=cache)

        assert intact == (again.folder / f"{name}.npy").read_bytes()
        assert len(reads) == 2

    @pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy", "facts.json"])
    @pytest.mark.parametrize(
        "spoil", [Path.unlink, lambda path: os.truncate(path, 150), lambda path: os.truncate(path, 0)]
    )
    def test_a_missing_or_truncated_file_is_noticed_and_put_right(self, tmp_path, cache, reads, name, spoil):
        source = of_images(write_folder(tmp_path / "folder", pictures()))
        first = prepare(source, cache=cache)
        expected = first.train_images.copy()
        spoil(first.folder / name)

        again = prepare(source, cache=cache)

        assert first.facts == again.facts
        assert (expected == again.train_images).all()
        assert len(reads) == 2

    @pytest.mark.parametrize("change", [("10", "9"), ("images", "digits"), ("cat", "car")])
    def test_changed_facts_are_noticed_and_put_right(self, tmp_path, cache, change):
        source = of_images(write_folder(tmp_path / "folder", pictures(per_class=10)))
        first = prepare(source, cache=cache)
        path = first.folder / "facts.json"
        path.write_text(path.read_text().replace(*change))

        assert first == prepare(source, cache=cache)

    def test_what_an_interrupted_preparation_left_is_cleared_away(self, tmp_path, cache):
        write_folder(cache, {"preparing/train_images.npy": b"half"})

        dataset = prepare(of_images(write_folder(tmp_path / "folder", pictures())), cache=cache)

        assert not (cache / "preparing").exists()
        assert dataset.facts.train_images == 6

    @pytest.mark.parametrize("pack", [write_folder, write_archive])
    def test_a_changed_source_is_read_again(self, tmp_path, cache, pack):
        before = prepare(of_images(pack(tmp_path / "a.tgz", pictures())), cache=cache)

        after = prepare(
            of_images(pack(tmp_path / "a.tgz", {**pictures(), "train/cat/0.png": picture(77)})), cache=cache
        )

        assert before.facts.digest != after.facts.digest

    def test_the_same_content_from_two_sources_is_kept_once(self, tmp_path, cache, reads):
        folder = prepare(of_images(write_folder(tmp_path / "folder", pictures())), cache=cache)
        archive = prepare(of_images(write_archive(tmp_path / "a.tgz", pictures())), cache=cache)

        assert folder.folder == archive.folder
        assert len(reads) == 2

    def test_a_damaged_cache_whose_source_is_gone_is_an_error(self, tmp_path, cache):
        source = of_images(write_folder(tmp_path / "folder", pictures()))
        (prepare(source, cache=cache).folder / "test_images.npy").unlink()
        shutil.rmtree(tmp_path / "folder")

        with pytest.raises(DataUnavailable, match="no folder or archive"):
            prepare(source, cache=cache)

    def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(self, tmp_path):
        (tmp_path / "taken").write_bytes(b"")

        with pytest.raises(DataUnavailable, match=r"cannot prepare .* in .*taken.*--state-dir"):
            prepare(of_images(write_folder(tmp_path / "folder", pictures())), cache=tmp_path / "taken")

    def test_importing_needs_numpy_only(self):
        script = (
            "import sys, ablation.datasets;"
            "others = {'torch', 'torchvision', 'PIL', 'sklearn', 'filelock', 'pydantic', 'ablation.study'};"
            "print(others & set(sys.modules))"
        )
        answer = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)

        assert answer.stdout == "set()\n"


class TestCifar10:
    def settings(self, root: Path | None) -> DataSettings:
        return DataSettings(name="cifar10", root=None if root is None else str(root), validation=0.1)

    def test_shape_is_known_without_the_data(self, tmp_path, cache):
        shape = describe(self.settings(tmp_path / "nowhere"), cache=cache).shape

        assert (shape.channels, shape.height, shape.width, len(shape.classes)) == (3, 32, 32, 10)

    @pytest.mark.parametrize(
        "error", [urllib.error.URLError("no route to host"), TimeoutError("timed out"), RuntimeError("corrupted")]
    )
    def test_a_failed_download_says_where_and_what_to_do(self, tmp_path, cache, monkeypatch, error):
        use_torchvision(monkeypatch, lambda *_, **__: throw(error))

        with pytest.raises(DataUnavailable) as caught:
            prepare(self.settings(tmp_path / "mine"), cache=cache)

        for part in (str(tmp_path / "mine"), str(error), "cifar-10-batches-py", "--set data.root=", "images", "digits"):
            assert part in str(caught.value)

    def test_downloads_go_below_the_cache_unless_a_root_is_given(self, cache, monkeypatch):
        use_torchvision(monkeypatch, lambda *_, **__: throw(OSError("offline")))

        with pytest.raises(DataUnavailable, match=str(cache / "downloads")):
            prepare(self.settings(None), cache=cache)

    def test_a_silent_server_is_given_up_and_the_timeout_put_back(self, tmp_path, cache, monkeypatch):
        seen: list[float | None] = []
        use_torchvision(
            monkeypatch, lambda *_, **__: seen.append(socket.getdefaulttimeout()) or throw(OSError("quiet"))
        )

        with pytest.raises(DataUnavailable):
            prepare(self.settings(tmp_path), cache=cache)

        assert seen == [15.0]
        assert socket.getdefaulttimeout() is None

    def test_neither_torchvision_nor_an_old_pickle_is_heard(self, tmp_path, cache, monkeypatch, capsys):
        def talkative(root: Path, *, train: bool, download: bool) -> types.SimpleNamespace:
            sys.stdout.write("Files already downloaded and verified")
            warnings.warn("align should be a boolean", np.exceptions.VisibleDeprecationWarning, stacklevel=1)
            labels = list(range(10)) * (5 if train else 1)
            return types.SimpleNamespace(data=np.zeros((len(labels), 32, 32, 3), dtype=np.uint8), targets=labels)

        use_torchvision(monkeypatch, talkative)
        dataset = prepare(self.settings(tmp_path), cache=cache)

        assert capsys.readouterr().out == ""
        assert (dataset.facts.train_images, dataset.facts.test_images) == (50, 10)

    @pytest.mark.slow
    def test_an_archive_in_the_root_is_used_and_its_pixels_kept(self, tmp_path, cache, monkeypatch):
        batches = fake_cifar_batches()
        provide_cifar_archive(monkeypatch, tmp_path, batches)

        dataset = prepare(self.settings(tmp_path), cache=cache)

        rows = np.stack([batches[name]["data"] for name in sorted(batches) if name.startswith("data")]).reshape(
            -1, 3, 32, 32
        )
        assert (rows.transpose(0, 2, 3, 1) == dataset.train_images).all()
        assert list(range(10)) * 5 == dataset.train_labels.tolist()
        assert describe(self.settings(tmp_path), cache=cache).shape == dataset.facts.shape

    @pytest.mark.slow
    def test_a_damaged_download_is_never_read(self, tmp_path, cache, monkeypatch):
        provide_cifar_archive(monkeypatch, tmp_path, fake_cifar_batches())
        (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"damaged")
        monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda *_, **__: throw(OSError("offline")))

        with pytest.raises(DataUnavailable, match="could not be downloaded there: offline"):
            prepare(self.settings(tmp_path), cache=cache)


class TestSplit:
    """The sizes of classes, limits and fractions are drawn; the labels lie in shuffled order."""

    sizes = st.lists(st.integers(2, 40), min_size=2, max_size=6)

    @given(sizes=sizes, data=st.data(), seed=st.integers(0, 9))
    @settings(max_examples=40, deadline=None)
    def test_parts_are_disjoint_and_together_all_that_the_limit_left(self, made, sizes, data, seed):
        dataset = made(sizes)
        limit = data.draw(st.none() | st.integers(len(sizes), sum(sizes)))
        whole = make_split(dataset, drawn_from(limit, "none"), study_seed=1, seed=seed)
        assume(counts_of(dataset, whole.train).min() >= 2)

        split = make_split(dataset, drawn_from(limit, 0.5), study_seed=1, seed=seed)

        assert split.validation is not None
        assert whole.train.tolist() == sorted([*split.train.tolist(), *split.validation.tolist()])
        assert (limit or sum(sizes)) == len(whole.train) == len(set(whole.train.tolist()))
        assert set(split.sample.tolist()) <= set(split.train.tolist())
        assert np.int64 == split.train.dtype == split.validation.dtype == split.sample.dtype

    @given(sizes=sizes, fraction=st.floats(0.05, 0.5), seed=st.integers(0, 9))
    @settings(max_examples=60, deadline=None)
    def test_every_class_keeps_its_share_and_is_in_both_parts(self, made, sizes, fraction, seed):
        dataset = made(sizes)
        held_out = round(fraction * sum(sizes))
        if held_out < len(sizes):
            with pytest.raises(DataInvalid, match=r"@ data\.validation"):
                make_split(dataset, drawn_from(None, fraction), study_seed=0, seed=seed)
            return

        split = make_split(dataset, drawn_from(None, fraction), study_seed=0, seed=seed)

        assert split.validation is not None
        counts = counts_of(dataset, split.validation)
        shares = held_out * np.array(sizes) / sum(sizes)
        assert held_out == counts.sum()
        assert (counts >= 1).all()
        assert (counts_of(dataset, split.train) >= 1).all()
        assert (counts <= np.ceil(shares).clip(1)).all()
        if (shares >= 1).all():
            assert (counts >= np.floor(shares)).all()

    @given(sizes=sizes, data=st.data())
    @settings(max_examples=40, deadline=None)
    def test_a_limit_keeps_proportions_and_every_class(self, made, sizes, data):
        dataset = made(sizes)
        limit = data.draw(st.integers(len(sizes), sum(sizes)))

        counts = counts_of(dataset, make_split(dataset, drawn_from(limit), study_seed=0, seed=0).train)

        assert limit == counts.sum()
        assert (counts >= 1).all()
        assert (counts <= np.ceil(limit * np.array(sizes) / sum(sizes)).clip(1)).all()

    @given(sizes=sizes, data=st.data())
    @settings(max_examples=40, deadline=None)
    def test_of_two_limits_a_class_has_the_images_of_one_among_those_of_the_other(self, made, sizes, data):
        dataset = made(sizes)
        limits = data.draw(st.lists(st.integers(len(sizes), sum(sizes)), min_size=2, max_size=2))

        one, other = (make_split(dataset, drawn_from(limit), study_seed=0, seed=0).train for limit in limits)

        for label in range(len(sizes)):
            images = [set(indices[dataset.train_labels[indices] == label].tolist()) for indices in (one, other)]
            assert images[0] <= images[1] or images[1] <= images[0]

    @given(sizes=sizes, study_seed=st.integers(0, 2**31 - 1), seed=st.integers(0, 9999))
    @settings(max_examples=20, deadline=None)
    def test_the_same_seeds_give_the_same_split_whatever_was_drawn_before(self, made, sizes, study_seed, seed):
        dataset = made([size + 10 for size in sizes])
        drawn = drawn_from(len(sizes) * 8, 0.5)

        first = make_split(dataset, drawn, study_seed=study_seed, seed=seed)
        np.random.default_rng().random()
        make_split(dataset, drawn, study_seed=study_seed + 1, seed=seed)
        again = make_split(
            open_dataset(dataset.folder), replace(drawn, augmentation="flip"), study_seed=study_seed, seed=seed
        )

        assert as_lists(first) == as_lists(again)

    def test_a_known_split_stays_what_it_was(self, digits):
        split = make_split(digits, drawn_from(400, 0.1), study_seed=0, seed=3)

        assert short_digest(as_lists(split)) == "39f6c17fada6420b"

    def test_another_seed_gives_another_validation_of_the_same_subset(self, digits):
        drawn = drawn_from(300, 0.1)
        splits = [make_split(digits, drawn, study_seed=0, seed=seed) for seed in (0, 1)]

        subsets = [sorted([*split.train.tolist(), *split.validation.tolist()]) for split in splits]
        assert subsets[0] == subsets[1]
        assert splits[0].validation.tolist() != splits[1].validation.tolist()

    def test_another_study_seed_gives_another_subset(self, digits):
        one, other = (make_split(digits, drawn_from(300), study_seed=seed, seed=0).train for seed in (0, 1))

        assert one.tolist() != other.tolist()

    def test_the_sample_is_at_most_2000_images_of_train(self, made):
        split = make_split(made([1500, 1500]), drawn_from(None, 0.1), study_seed=0, seed=0)

        assert len(set(split.sample.tolist())) == 2000
        assert set(split.sample.tolist()) <= set(split.train.tolist())

    def test_without_validation_train_is_everything(self, digits):
        split = make_split(digits, drawn_from(None, "none"), study_seed=0, seed=0)

        assert split.validation is None
        assert list(range(1442)) == split.train.tolist()

    @pytest.mark.parametrize("limit", [9, 1443])
    def test_a_limit_that_cannot_be_taken_is_named(self, digits, limit):
        with pytest.raises(DataInvalid, match=rf"{limit} training images cannot be taken.*@ data\.limit"):
            make_split(digits, drawn_from(limit), study_seed=0, seed=0)

    @given(sizes=st.lists(st.integers(0, 12), min_size=2, max_size=6), data=st.data())
    @settings(max_examples=60, deadline=None)
    def test_the_only_example_of_a_class_stays_in_train_and_empty_classes_are_passed_over(self, made, sizes, data):
        assume(sum(sizes) >= 2)
        dataset, fraction = made(sizes), data.draw(st.floats(0.05, 0.5))
        try:
            split = make_split(dataset, drawn_from(None, fraction), study_seed=0, seed=0)
        except DataInvalid as error:
            assert "@ data.validation" in str(error)  # noqa: PT017 - that it cannot be is a matter of the sizes
            return

        assert split.validation is not None
        counts, left = counts_of(dataset, split.validation), counts_of(dataset, split.train)
        assert round(fraction * sum(sizes)) == counts.sum()
        assert sizes == (counts + left).tolist()
        for size, held_out, kept in zip(sizes, counts, left, strict=True):
            assert (held_out >= 1, kept >= 1) == (size >= 2, size >= 1)

    def test_classes_of_one_example_leave_too_few_to_hold_out(self, made):
        with pytest.raises(DataInvalid, match=r"0\.5 of 10 training images is 5, and 8 classes have 1, which is not"):
            make_split(made([2, *[1] * 8]), drawn_from(None, 0.5), study_seed=0, seed=0)


class TestChannelStatistics:
    @given(seed=st.integers(0, 1000), count=st.integers(1, 30), channels=st.sampled_from([1, 3]))
    @settings(max_examples=25, deadline=None)
    def test_mean_and_deviation_are_those_of_numpy(self, seed, count, channels):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, size=(40, 5, 3, channels), dtype=np.uint8)
        indices = rng.choice(40, size=count, replace=False)

        mean, deviation = channel_statistics(images, indices)

        pixels = images[indices].reshape(-1, channels).astype(np.float64)
        np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(deviation, pixels.std(axis=0), rtol=1e-6)
        assert np.float32 == mean.dtype == deviation.dtype

    def test_neither_order_nor_chunks_alter_a_bit(self, digits, monkeypatch):
        indices = np.arange(1442)
        expected = channel_statistics(digits.train_images, indices)

        monkeypatch.setattr("ablation.datasets.channels.CHUNK_PIXELS", 5000)
        reversed_in_chunks = channel_statistics(digits.train_images, indices[::-1])

        assert [values.tobytes() for values in expected] == [values.tobytes() for values in reversed_in_chunks]

    def test_a_constant_channel_has_deviation_1(self):
        mean, deviation = channel_statistics(np.full((3, 2, 2, 1), 7, dtype=np.uint8), np.arange(3))

        assert (mean.tolist(), deviation.tolist()) == ([7.0], [1.0])


class TestChecks:
    def arrays(self) -> dict[str, np.ndarray]:
        images, labels = np.zeros((4, 2, 2, 1), dtype=np.uint8), np.array([0, 1, 0, 1])
        return {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train_labels": np.array([0, 1, 0, 2])}, r"train labels are 0\.\.2, not within 0\.\.1"),
            ({"test_labels": np.array([0, -1, 0, 1])}, r"test labels are -1\.\.1, not within"),
            ({"train_labels": np.zeros(4, dtype=np.int32)}, "train labels are int32"),
            ({"train_labels": np.zeros(3, dtype=np.int64)}, r"train labels are int64 \(3,\)"),
            ({"train_images": np.zeros((4, 2, 2, 1))}, "train images are float64"),
            ({"train_images": np.zeros((4, 2, 2, 2), dtype=np.uint8)}, r"train images are uint8 \(4, 2, 2, 2\)"),
            ({"test_images": np.zeros((4, 2, 3, 1), dtype=np.uint8)}, r"training images are \(2, 2, 1\), test images"),
            (
                {"test_images": np.zeros((0, 2, 2, 1), dtype=np.uint8), "test_labels": np.zeros(0, dtype=np.int64)},
                "test has no images",
            ),
        ],
    )
    def test_arrays_that_are_no_data_set_are_refused(self, tmp_path, changes, message):
        write_arrays(tmp_path, {**self.arrays(), **changes})

        with pytest.raises(DataInvalid, match=message):
            write_facts(tmp_path, name="made", classes=("a", "b"), source="made")

    def test_arrays_that_are_a_data_set_are_accepted(self, tmp_path):
        write_arrays(tmp_path, self.arrays())

        facts = write_facts(tmp_path, name="made", classes=("a", "b"), source="made")

        assert isinstance(facts, DataFacts)
        assert facts.largest_class_share == 0.5


@pytest.mark.slow
def test_the_jpeg_copy_of_cifar10_is_read_whole_with_modest_memory(cache):
    if not JPEG_ARCHIVE.exists():
        pytest.skip(f"{JPEG_ARCHIVE} is absent; say where it is with ABLATION_IMAGE_ARCHIVE")
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    script = (
        "from pathlib import Path; from ablation.datasets import prepare;"
        "from ablation.records import DataSettings;"
        f"facts = prepare({of_images(JPEG_ARCHIVE)!r}, cache=Path({str(cache)!r})).facts;"
        "peak_kib = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0];"
        "print(facts.train_images, facts.test_images, facts.shape.height, facts.shape.width, facts.shape.channels,"
        "len(facts.shape.classes), peak_kib)"
    )

    answer = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True, text=True)

    *facts, peak_kib = map(int, answer.stdout.split())
    assert facts == [50_000, 10_000, 32, 32, 3, 10]
    assert peak_kib < 200 * 1024


def throw(error: Exception) -> None:
    raise error


def drawn_from(limit: int | None, validation: float | Literal["none"] = "none") -> DataSettings:
    return DataSettings(name="made", limit=limit, validation=validation)


def short_digest(parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def png_header(side: int) -> bytes:
    """Begin a PNG of side x side pixels that has no pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def use_torchvision(monkeypatch: pytest.MonkeyPatch, reader: Callable[..., object]) -> None:
    """Put a fake of torchvision.datasets, whose CIFAR10 is `reader`, in the real one's place."""
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    fake = types.ModuleType("torchvision.datasets")
    fake.CIFAR10 = reader
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fake)


def fake_cifar_batches() -> dict[str, dict[str, object]]:
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    return {
        name: {"data": rng.integers(0, 256, size=(10, 3072), dtype=np.uint8), "labels": list(range(10))}
        for name in names
    }


def provide_cifar_archive(
    monkeypatch: pytest.MonkeyPatch, root: Path, batches: Mapping[str, Mapping[str, object]]
) -> None:
    """Write an archive like CIFAR-10's, and have torchvision expect its MD5 sums."""
    from torchvision.datasets import CIFAR10

    contents = {name: pickle.dumps(batch) for name, batch in batches.items()}
    contents["batches.meta"] = pickle.dumps({"label_names": [str(index) for index in range(10)]})
    archive = write_archive(
        root / "cifar-10-python.tar.gz", {f"cifar-10-batches-py/{name}": content for name, content in contents.items()}
    )
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in sorted(batches) if name != "test_batch"])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    )
