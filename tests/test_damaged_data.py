"""Data that is damaged or made to do harm: nothing leads out of its folder, nothing takes much memory, all is said.

What else can be wrong with images, archives, caches and arrays is held in test_datasets.py and test_own_data.py.
"""

import gzip
import io
import os
import socket
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_datasets import of_images, picture, pictures, write_archive, write_folder

from ablation.datasets import describe, open_dataset, prepare
from ablation.datasets.arrays import ARRAYS, verified
from ablation.datasets.own_arrays import read_arrays
from ablation.errors import AblationError, DataInvalid, DataUnavailable
from ablation.records import DataSettings

ATTEMPTS = pytest.mark.parametrize("attempt", [describe, prepare])


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "state" / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "photos", pictures())


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "private", {"secret.png": picture(9), "cat/0.png": picture(8)})


def link_file(folder: Path, elsewhere: Path) -> str:
    (folder / "train/cat/9.png").symlink_to(elsewhere / "secret.png")
    return "train/cat/9.png"


def link_upwards(folder: Path, elsewhere: Path) -> str:
    (folder / "train/cat/9.png").symlink_to("../../../private/secret.png")
    return "train/cat/9.png"


def link_by_way_of_a_link(folder: Path, elsewhere: Path) -> str:
    (folder / "way").symlink_to(elsewhere)
    (folder / "train/cat/9.png").symlink_to("../../way/secret.png")
    return "train/cat/9.png"


def link_class(folder: Path, elsewhere: Path) -> str:
    (folder / "train/elk").symlink_to(elsewhere / "cat")
    return "train/elk"


def link_split(folder: Path, elsewhere: Path) -> str:
    (folder / "test").rename(elsewhere / "test")
    (folder / "test").symlink_to(elsewhere / "test")
    return "test"


def link_everything(folder: Path, elsewhere: Path) -> str:
    write_folder(elsewhere / "more", pictures())
    (folder / "more").symlink_to(elsewhere / "more")
    return "more/train"


class TestLinks:
    @ATTEMPTS
    @pytest.mark.parametrize(
        "link", [link_file, link_upwards, link_by_way_of_a_link, link_class, link_split, link_everything]
    )
    def test_a_link_out_of_the_folder_is_named_and_not_followed(
        self,
        folder: Path,
        elsewhere: Path,
        cache: Path,
        link: Callable[[Path, Path], str],
        attempt: Callable[..., object],
    ) -> None:
        name = link(folder, elsewhere)

        said = rf" (is a link|are links) to {elsewhere}\S*, outside the folder: {name}(, \S+)?\. They are not followed"
        with pytest.raises(DataInvalid, match=said):
            attempt(of_images(folder), cache=cache)

    def test_links_within_the_folder_and_the_folder_as_a_link_are_followed(self, folder: Path, cache: Path) -> None:
        plain = prepare(of_images(write_folder(folder.parent / "plain", pictures())), cache=cache)
        (folder / "train/cat/0.png").rename(folder / "first.png")
        (folder / "train/cat/0.png").symlink_to("../../first.png")
        (folder.parent / "photos-today").symlink_to(folder)

        linked = prepare(of_images(folder.parent / "photos-today"), cache=cache)

        assert plain.facts == linked.facts

    def test_a_circle_of_links_comes_to_an_end(self, folder: Path, cache: Path) -> None:
        (folder / "train/cat/again").symlink_to(folder)
        (folder / "train/cat/9.png").symlink_to("9.png")

        with pytest.raises(AblationError):
            prepare(of_images(folder), cache=cache)

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: socket.socket(socket.AF_UNIX).bind(str(path))])
    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_a_pipe_or_a_socket_is_never_opened(
        self, folder: Path, cache: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        make(Path("train/cat/9.png"))

        with pytest.raises(DataInvalid, match=r"train/cat/9\.png is a pipe, a socket or a device"):
            prepare(of_images(folder), cache=cache)


class TestBombs:
    def test_a_member_of_an_archive_that_unpacks_to_much_takes_no_memory(self, tmp_path: Path, cache: Path) -> None:
        archive = write_archive(tmp_path / "a.tgz", {**pictures(), "train/cat/9.png": bytes(65 << 20)})

        with pytest.raises(DataInvalid, match=r"train/cat/9\.png has more than 64 MiB"):
            measured(lambda: prepare(of_images(archive), cache=cache))

    @pytest.mark.parametrize(
        "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
    )
    def test_a_name_that_unpacks_to_much_takes_no_memory(self, tmp_path: Path, cache: Path, kind: bytes) -> None:
        header = tarfile.TarInfo("name")
        header.type, header.size = kind, 200 << 20
        with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(200):
                file.write(bytes(1 << 20))

        with pytest.raises(DataInvalid, match="the archive is damaged: a name of 209715200 bytes"):
            measured(lambda: prepare(of_images(tmp_path / "a.tar.gz"), cache=cache))

    def test_a_name_of_a_thousand_characters_is_read(self, tmp_path: Path, cache: Path) -> None:
        long = f"train/cat/{'x' * 1000}.png"

        dataset = prepare(of_images(write_archive(tmp_path / "a.tar", {**pictures(), long: picture(3)})), cache=cache)

        assert 7 == dataset.facts.train_images

    @pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
    def test_text_in_a_picture_that_unpacks_to_much_takes_no_memory(
        self, folder: Path, cache: Path, chunk: bytes
    ) -> None:
        content = picture(0)
        packed = b"Comment\0\0" + zlib.compress(bytes(100 << 20), 1)
        bomb = struct.pack(">I", len(packed)) + chunk + packed + struct.pack(">I", zlib.crc32(chunk + packed))
        (folder / "train/cat/1.png").write_bytes(content[:33] + bomb + content[33:])

        try:
            measured(lambda: prepare(of_images(folder), cache=cache))
        except DataInvalid as error:
            assert "train/cat/1.png" in str(error)  # noqa: PT017 - a reader may also pass such text over

    @settings(max_examples=30, deadline=None)
    @given(st.data())
    def test_a_picture_with_bytes_changed_is_pixels_or_named(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        root = tmp_path_factory.mktemp("changed")
        suffix = data.draw(st.sampled_from(["png", "bmp", "jpeg", "tiff", "webp", "ppm"]))
        content = bytearray(picture(1, suffix=suffix))
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        files = {**pictures(), f"train/dog/9.{suffix}": bytes(content)}

        try:
            prepare(of_images(write_folder(root / "photos", files)), cache=root / "cache")
        except DataInvalid as error:
            assert f"train/dog/9.{suffix}" in str(error)  # noqa: PT017 - most changes leave a picture


def measured(work: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        work()
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 24 << 20


class TestCache:
    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_whatever_is_done_to_a_prepared_file_it_is_not_taken_for_intact(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        root = tmp_path_factory.mktemp("cache")
        dataset = prepare(of_images(write_folder(root / "photos", pictures(per_class=1))), cache=root / "cache")
        path = dataset.folder / f"{data.draw(st.sampled_from(ARRAYS))}.npy"
        intact = path.read_bytes()
        start = data.draw(st.integers(0, len(intact)))
        stop = data.draw(st.integers(start, min(len(intact), start + 20)))
        changed = intact[:start] + data.draw(st.binary(max_size=20)) + intact[stop:]
        path.write_bytes(changed)

        found = verified(dataset.folder, digest=dataset.facts.digest)

        assert (changed == intact) == (found is not None)

    def test_labels_exchanged_within_the_cache_are_noticed(self, folder: Path, cache: Path) -> None:
        source = of_images(folder)
        first = prepare(source, cache=cache)
        labels = first.train_labels.tolist()
        swapped = np.array(first.train_labels)[::-1].copy()
        np.save(first.folder / "train_labels.npy", swapped)

        assert labels == prepare(source, cache=cache).train_labels.tolist()

    def test_a_record_that_leads_out_of_the_cache_is_not_followed(self, folder: Path, cache: Path) -> None:
        source = of_images(folder)
        first = prepare(source, cache=cache)
        first.folder.rename(cache.parent / "moved")
        (record,) = (cache / "sources").iterdir()
        record.write_text(record.read_text().replace(first.folder.name, "../moved"))

        again = prepare(source, cache=cache)

        assert cache.resolve() == again.folder.parent

    def test_objects_in_a_prepared_file_are_never_unpickled(self, folder: Path, cache: Path, tmp_path: Path) -> None:
        dataset = prepare(of_images(folder), cache=cache)
        np.save(dataset.folder / "train_labels.npy", np.array([Trap(tmp_path / "owned")], dtype=object))

        assert verified(dataset.folder, digest=dataset.facts.digest) is None
        with pytest.raises(ValueError, match="Array can't be memory-mapped: Python objects in dtype"):
            assert open_dataset(dataset.folder).train_labels.size
        assert not (tmp_path / "owned").exists()


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


class TestCifar10:
    @pytest.mark.slow
    def test_an_archive_of_another_digest_is_never_extracted(
        self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = tmp_path / "downloads"
        root.mkdir()
        with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
            for name in ("../owned", "cifar-10-batches-py/data_batch_1"):
                member = tarfile.TarInfo(name)
                member.size = 4
                archive.addfile(member, io.BytesIO(b"evil"))
        monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", offline)
        settings_ = DataSettings(name="cifar10", root=str(root))

        with pytest.raises(DataUnavailable, match="could not be downloaded there: offline"):
            prepare(settings_, cache=cache)

        assert not (tmp_path / "owned").exists()
        assert not (root / "cifar-10-batches-py").exists()


def offline(*_: object, **__: object) -> None:
    raise OSError("offline")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_a_function_of_the_users_returns_is_arrays_or_a_sentence(data: st.DataObject) -> None:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
    arrays = st.builds(
        lambda shape, dtype: np.zeros(shape, dtype=dtype),
        st.lists(st.integers(0, 3), max_size=5).map(tuple),
        st.sampled_from(["u1", "i1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "S2", "U2", "M8[s]", "V2", "O"]),
    )
    values = st.recursive(
        scalars | arrays, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner), max_leaves=6
    )
    returned = data.draw(
        st.fixed_dictionaries({"train": st.tuples(values, values), "test": st.tuples(values, values)})
        | st.dictionaries(st.sampled_from(["train", "test", "classes"]), values, max_size=3)
        | values
    )

    try:
        read, classes = read_arrays(returned, source="data.py:load")
    except DataInvalid as error:
        assert all(line.isprintable() for line in str(error).split("\n"))  # noqa: PT017 - most of it is refused
    else:
        assert set(ARRAYS) == set(read)
        assert len(classes) >= 2
