"""The user's own code is found, imported once, identified by its content, and every mistake in it is said plainly."""

import dataclasses
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ablation.code import CodeFolders, bound, code_problem, is_code, running
from ablation.errors import CodeInvalid

Write = Callable[[Mapping[str, str]], Path]
PROJECT = Path(__file__).parents[1]

PACKAGE = {
    "project/__init__.py": "",
    "project/nets/__init__.py": "from .layers import WIDTH\n",
    "project/nets/layers.py": "WIDTH = 8\n",
    "project/nets/small.py": "from ..sizes import DEPTH\nfrom . import layers\ndef net(): return DEPTH, layers.WIDTH\n",
    "project/sizes.py": "DEPTH = 3\n",
}


@pytest.fixture(autouse=True)
def _path_is_restored() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files into a folder of the test's own and return the folder."""

    def write_all(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write_all


def folders(*paths: Path) -> CodeFolders:
    return CodeFolders(folders=paths)


def error_of(code: CodeFolders, name: str) -> str:
    with pytest.raises(CodeInvalid) as caught:
        code.load(name, path="model.name")
    assert caught.value.path == "model.name"
    assert caught.value.__reduce__()
    return str(caught.value)


class TestNames:
    @pytest.mark.parametrize("name", ["net.py:Net", "a/b.py:f", "/a/b.py:f", "a.b:C.make", "net.py", "C:\\net.py:f"])
    def test_a_file_or_module_with_a_colon_is_code(self, name: str) -> None:
        assert is_code(name)

    @pytest.mark.parametrize("name", ["cnn", "torchvision:resnet18", "", "images", 3, None, True, ["a:b"]])
    def test_anything_else_is_not(self, name: object) -> None:
        assert not is_code(name)

    @pytest.mark.parametrize("name", ["net.py:Net", "../a b/net-2.py:Net.make", "/a/b.py:f", "a.b:C", "~/net.py:f"])
    def test_good_names_have_no_problem(self, name: str) -> None:
        assert code_problem(name) is None

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("net.py", "names a file and nothing in it; write 'net.py:name'"),
            ("own.train", "has no ':' before the name of the function; write 'own:train'"),
            ("net.py:", "'' in 'net.py:' is not a name in Python"),
            ("net.py:my-net", "'my-net' in 'net.py:my-net' is not a name"),
            ("net.py:class", "'class' in 'net.py:class' is not a name"),
            (":net", "names no file or module"),
            ("nets/small:net", "'nets/small' is not a .py file"),
            ("..nets:net", "'..nets' is neither a .py file nor a module"),
            ("my-nets:net", "'my-nets' is neither a .py file nor a module"),
            ("a\n.py:net", "has characters that no name of code has"),
        ],
    )
    def test_a_bad_name_is_told_what_to_write(self, name: str, said: str) -> None:
        problem = code_problem(name)

        assert problem is not None
        assert said in problem


class TestLoading:
    def test_a_file_is_found_in_the_first_folder_that_has_it(self, write: Write) -> None:
        root = write(
            {"a/net.py": "def net(): return 'a'", "b/net.py": "def net(): return 'b'", "b/other.py": "f = len"}
        )
        code = folders(root / "a", root / "b")

        assert "a" == code.load("net.py:net", path="model.name")()
        assert len is code.load("other.py:f", path="model.name")

    def test_a_file_imports_its_siblings(self, write: Write) -> None:
        root = write({"nets/net.py": "from sizes import width\nnet = width", "nets/sizes.py": "def width(): return 4"})

        assert 4 == folders(root).load("nets/net.py:net", path="model.name")()

    def test_an_absolute_path_needs_no_folder(self, write: Write) -> None:
        root = write({"net.py": "def net(): return 4"})

        assert 4 == CodeFolders().load(f"{root}/net.py:net", path="model.name")()

    @pytest.mark.parametrize("name", ["project.nets.small:net", "project/nets/small.py:net"])
    def test_relative_imports_work_in_modules_and_in_files_of_a_package(self, write: Write, name: str) -> None:
        assert (3, 8) == folders(write(PACKAGE)).load(name, path="model.name")()

    def test_a_cycle_of_imports_is_as_good_as_in_python(self, write: Write) -> None:
        root = write({"one.py": "import two\ndef f(): return two.g()", "two.py": "import one\ndef g(): return 5"})

        assert 5 == folders(root).load("one:f", path="model.name")()

    def test_an_attribute_of_a_class_is_found(self, write: Write) -> None:
        root = write({"net.py": "class Net:\n    @classmethod\n    def make(cls): return cls.__name__"})

        assert "Net" == folders(root).load("net.py:Net.make", path="model.name")()

    def test_a_file_is_imported_once(self, write: Write) -> None:
        code = folders(write({"net.py": "class Net: pass"}))

        assert code.load("net.py:Net", path="a") is code.load("./net.py:Net", path="b")

    def test_a_changed_file_is_imported_again_and_a_changed_sibling_too(self, write: Write) -> None:
        code = folders(write({"net.py": "from sizes import N\ndef net(): return N", "sizes.py": "N = 1"}))
        first = code.load("net.py:net", path="model.name")()
        write({"sizes.py": "N = 2"})

        assert (1, 2) == (first, code.load("net.py:net", path="model.name")())

    def test_two_projects_with_files_of_the_same_name_are_kept_apart(self, write: Write) -> None:
        files = {"main.py": "from helper import f", "package/__init__.py": "", "package/net.py": "from helper import f"}
        root = write({f"{top}/{name}": text for top in "ab" for name, text in files.items()})
        write({f"{top}/helper.py": f"def f(): return {top!r}" for top in "ab"})

        for top in ("a", "b", "a"):
            assert top == folders(root / top).load("main.py:f", path="model.name")()
            assert top == folders(root / top).load("package.net:f", path="model.name")()

    def test_what_it_defines_can_be_pickled(self, write: Write) -> None:
        root = write({"net.py": "import dataclasses\n@dataclasses.dataclass\nclass Net:\n    width: 'int' = 3"})
        net = folders(root).load("net.py:Net", path="model.name")()

        assert net == pickle.loads(pickle.dumps(net))
        assert dataclasses.is_dataclass(net)

    def test_an_import_inside_a_function_is_found_later(self, write: Write) -> None:
        root = write(
            {"net.py": "def net():\n    import late_sibling\n    return late_sibling.N", "late_sibling.py": "N = 6"}
        )

        assert 6 == folders(root).load("net.py:net", path="model.name")()

    def test_the_users_folders_come_last_in_the_path_afterwards_and_once(self, write: Write) -> None:
        root = write({"net.py": "f = len", "random.py": "raise ValueError"})
        for _ in range(2):
            folders(root, root).load("net.py:f", path="model.name")

        assert [str(root)] == [entry for entry in sys.path if entry == str(root)]
        assert str(root) == sys.path[-1]

    def test_what_it_prints_stays_off_standard_output(self, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
        folders(write({"net.py": "print('hello')\nf = len"})).load("net.py:f", path="model.name")

        assert ("", "hello\n") == capsys.readouterr()

    def test_nothing_is_written_beside_it(self, write: Write) -> None:
        root = write({"net.py": "import sizes\nf = len", "sizes.py": ""})
        folders(root).load("net.py:f", path="model.name")

        assert {"net.py", "sizes.py"} == {path.name for path in root.iterdir()}

    @pytest.mark.slow
    def test_a_spawned_process_loads_the_same(self, write: Write) -> None:
        root = write({"net.py": "import torch, numpy\nfrom sizes import f", "sizes.py": "def f(): return 7"})
        text = pickle.dumps(folders(root)).hex()
        script = f"import pickle; print(pickle.loads(bytes.fromhex({text!r})).load('net.py:f', path='a')())"

        assert "7\n" == subprocess.check_output([sys.executable, "-c", script], text=True, cwd=PROJECT)


class TestLoadingErrors:
    def test_a_missing_file_names_the_near_ones(self, write: Write) -> None:
        root = write({"nets/model.py": ""})

        said = error_of(folders(root), "nets/modle.py:Net")

        assert f"there is no file 'nets/modle.py' in {root}; did you mean 'model.py'? @ model.name" == said

    def test_a_missing_module_names_the_folders_that_were_searched(self, write: Write) -> None:
        root = write({"models.py": ""})

        said = error_of(folders(root), "modles:Net")

        assert (
            f"there is no module 'modles' in {root}, nor is it installed; did you mean 'models'? @ model.name" == said
        )

    def test_a_missing_submodule_is_told_from_its_package(self, write: Write) -> None:
        assert "there is no module 'project.net' in" in error_of(folders(write(PACKAGE)), "project.net:Net")

    def test_a_missing_package_that_the_file_imports_is_named_with_the_line(self, write: Write) -> None:
        said = error_of(folders(write({"net.py": "x = 1\nimport no_such_package.nets\n"})), "net.py:Net")

        assert "net.py:Net imports 'no_such_package', which is neither in" in said
        assert "line 2, in <module>" in said
        assert "import no_such_package.nets" in said

    def test_a_missing_attribute_names_the_near_ones(self, write: Write) -> None:
        code = folders(write({"net.py": "class Network:\n    def make(self): pass\n", "empty.py": ""}))

        assert "net.py has no 'Netwerk'; did you mean 'Network'? @ model.name" == error_of(code, "net.py:Netwerk")
        assert "Network has no 'mk'; did you mean 'make'? @ model.name" == error_of(code, "net.py:Network.mk")
        assert "empty.py has no 'Net'; there are: no names @ model.name" == error_of(code, "empty.py:Net")

    def test_what_cannot_be_called_is_refused(self, write: Write) -> None:
        code = folders(write({"net.py": "width = 3"}))

        assert "net.py:width is int, which cannot be called @ model.name" == error_of(code, "net.py:width")

    def test_a_name_of_bad_form_is_refused(self) -> None:
        assert "names a file and nothing in it" in error_of(CodeFolders(), "net.py")

    def test_what_it_raises_is_shown_with_the_users_frames_alone(self, write: Write) -> None:
        root = write({"net.py": "import sizes\n", "sizes.py": "def f():\n    return 1 / 0\nf()\n"})

        lines = error_of(folders(root), "net.py:Net").splitlines()

        assert "net.py:Net raised ZeroDivisionError when it was imported @ model.name" == lines[0]
        assert [f'{root}/{file}"' for file in ("net.py", "sizes.py", "sizes.py")] == [
            line.split()[1].strip(',"') + '"' for line in lines if line.startswith("    File")
        ]
        assert "  ZeroDivisionError: division by zero" == lines[-1]

    @pytest.mark.parametrize("name", ["net.py:Net", "net:Net"])
    def test_a_syntax_error_shows_the_line(self, write: Write, name: str) -> None:
        said = error_of(folders(write({"net.py": "x = 1\ndef net(:\n"})), name)

        assert f"{name} raised SyntaxError when it was imported" in said
        assert "line 2" in said
        assert "def net(:" in said
        assert "importlib" not in said
        assert "ablation/code" not in said

    @pytest.mark.parametrize(
        ("text", "kind"),
        [
            ("raise SystemExit(3)", "SystemExit"),
            ("import sys; sys.exit()", "SystemExit"),
            ("x = '\0'", "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"),
            ("def f(): f()\nf()", "RecursionError"),
            ("from . import net", "ImportError"),
            ("from math import cosinus", "ImportError"),
            ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "E"),
            ("raise ModuleNotFoundError('none')", "ModuleNotFoundError"),
        ],
    )
    def test_whatever_goes_wrong_at_import_is_an_error_in_words(self, write: Write, text: str, kind: str) -> None:
        said = error_of(folders(write({"net.py": text})), "net.py:Net")

        assert f"net.py:Net raised {kind} when it was imported @ model.name" in said

    def test_a_file_that_failed_can_be_put_right(self, write: Write) -> None:
        code = folders(write({"net.py": "import sizes\nf = sizes.f", "sizes.py": "raise ValueError"}))
        error_of(code, "net.py:f")
        write({"sizes.py": "f = len"})

        assert len is code.load("net.py:f", path="model.name")

    @pytest.mark.usefixtures("hearing_signals")
    def test_an_interruption_goes_through(self, write: Write) -> None:
        code = folders(write({"net.py": "raise KeyboardInterrupt"}))

        with pytest.raises(KeyboardInterrupt):
            code.load("net.py:f", path="model.name")


class TestDigest:
    def test_no_names_have_none(self) -> None:
        assert CodeFolders().digest([]) is None

    def test_a_known_digest_stays(self, write: Write) -> None:
        code = folders(
            write({"net.py": "import math\nfrom sizes import WIDTH\nnet = len\n", "sizes.py": "WIDTH = 8\n"})
        )

        assert "2811828f5b37f15b48b7d812f7d335cc" == code.digest(["net.py:net"])

    def test_it_is_the_same_where_the_project_is_moved(self, write: Write, tmp_path: Path) -> None:
        root = write({f"a/{name}": text for name, text in PACKAGE.items()})
        shutil.copytree(root / "a", root / "deeper" / "b")
        names = ["project.nets.small:net", "project/sizes.py:DEPTH"]

        assert folders(root / "a").digest(names) == folders(root / "deeper" / "b").digest(names)
        assert folders(root / "a").digest(names) == folders(root / "a").digest(reversed(names))

    @pytest.mark.parametrize("changed", list(PACKAGE))
    @pytest.mark.parametrize("name", ["project.nets.small:net", "project/nets/small.py:net"])
    def test_it_follows_every_module_of_a_package(self, write: Write, name: str, changed: str) -> None:
        code = folders(write(PACKAGE))
        before = code.digest([name])
        write({changed: PACKAGE[changed] + "\n"})

        assert before != code.digest([name])

    @pytest.mark.parametrize(
        "line",
        [
            "import helper",
            "import helper as h",
            "from helper import f",
            "from helper import *",
            "def g():\n    import helper",
            "try:\n    import helper\nexcept ImportError: pass",
            "import inner.deep",
            "from inner import deep",
            "from inner.deep import f",
            "import between",
        ],
    )
    def test_it_sees_every_kind_of_import(self, write: Write, line: str) -> None:
        text = "def f(): pass\n"
        code = folders(write({"net.py": line, "helper.py": text, "inner/deep.py": text, "between.py": "import helper"}))
        before = code.digest(["net.py:f"])
        write({"helper.py": text + "#", "inner/deep.py": text + "#"})

        assert before != code.digest(["net.py:f"])

    def test_files_that_are_not_imported_do_not_count(self, write: Write) -> None:
        code = folders(write({"net.py": "f = len"}))
        before = code.digest(["net.py:f"])
        write({"other.py": "", "f.py": ""})

        assert before == code.digest(["net.py:f"])

    def test_attributes_count_and_which_file_is_which(self, write: Write) -> None:
        code = folders(write({"net.py": "import one, two", "one.py": "f = 1", "two.py": "f = 2"}))
        before = code.digest(["net.py:f"])
        other = code.digest(["net.py:g"])
        write({"one.py": "f = 2", "two.py": "f = 1"})

        assert 3 == len({before, other, code.digest(["net.py:f"])})

    def test_cycles_end(self, write: Write) -> None:
        code = folders(write({"one.py": "import two, one", "two.py": "import one"}))

        assert code.digest(["one:f"]) == code.digest(["one.py:f"])

    def test_nothing_is_executed_and_broken_code_counts_by_its_bytes(self, write: Write) -> None:
        code = folders(write({"net.py": "import bad", "bad.py": "raise ValueError(\n"}))
        before = code.digest(["net.py:f"])
        write({"bad.py": "raise ValueError"})

        assert before != code.digest(["net.py:f"])

    def test_installed_packages_count_by_version(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        from ablation.code import sources

        code = folders(write({"net.py": "import numpy.linalg, sklearn, math"}))
        before = code.digest(["net.py:f"])
        sources._distribution.cache_clear()
        monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
        after = code.digest(["net.py:f"])
        sources._distribution.cache_clear()

        assert before != after

    def test_a_module_of_an_installed_package_counts_by_its_name_too(self) -> None:
        names = ["torch.nn:Linear", "torch.nn:Conv2d", "torch.nn.functional:Linear"]

        assert 3 == len({CodeFolders().digest([name]) for name in names})

    def test_a_project_elsewhere_on_the_path_is_read_and_not_taken_for_installed(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write({"net.py": "import editable_project.net", "src/editable_project/__init__.py": ""})
        write({"src/editable_project/net.py": "def f(): return 1"})
        monkeypatch.syspath_prepend(root / "src")
        code = folders(root)
        before = code.digest(["net.py:f"]), code.digest(["editable_project.net:f"])
        write({"src/editable_project/net.py": "def f(): return 2"})
        after = code.digest(["net.py:f"]), code.digest(["editable_project.net:f"])

        assert before[0] != after[0]
        assert before[1] != after[1]

    def test_a_folder_of_data_does_not_hide_an_installed_package(self, write: Write) -> None:
        root = write({"net.py": "import torch"})
        before = folders(root).digest(["net.py:f"])
        (root / "torch").mkdir()

        assert before == folders(root).digest(["net.py:f"])

    def test_this_package_counts_by_its_version(self, write: Write) -> None:
        code = folders(
            write({"net.py": "import ablation.models", "ablation/__init__.py": "", "ablation/models.py": ""})
        )
        before = code.digest(["net.py:f"])
        write({"ablation/models.py": "#"})

        assert before == code.digest(["net.py:f"])

    def test_names_that_lead_nowhere_have_a_digest_all_the_same(self, tmp_path: Path) -> None:
        assert folders(tmp_path).digest(["net.py:f"]) != folders(tmp_path).digest(["net.py:g"])

    def test_loading_does_not_change_it(self, write: Write) -> None:
        code = folders(write({**PACKAGE, "net.py": "import project.sizes, numpy\nf = len"}))
        before = code.digest(["net.py:f"])
        code.load("net.py:f", path="model.name")

        assert before == code.digest(["net.py:f"])


def net(data_shape: Any, width: int, *, depth: int = 2) -> tuple[object, int, int]:
    return data_shape, width, depth


def anything(**options: Any) -> dict[str, Any]:
    return options


def by_position(width: int, /) -> int:
    return width


class TestBound:
    def test_arguments_and_what_is_named_of_the_offer_are_given(self) -> None:
        given = bound(net, {"width": 3}, offered={"data_shape": (1, 2), "classes": 4}, section="model")

        assert {"data_shape": (1, 2), "width": 3} == given

    def test_what_takes_anything_gets_the_arguments_and_nothing_that_is_offered(self) -> None:
        assert {"width": 3} == bound(anything, {"width": 3}, offered={"classes": 4}, section="model")

    def test_the_study_file_has_the_last_word(self) -> None:
        assert {"data_shape": 1, "width": 2} == bound(
            net, {"width": 2, "data_shape": 1}, offered={"data_shape": 5}, section="model"
        )

    def test_what_has_no_signature_gets_the_arguments(self) -> None:
        assert {"a": 1} == bound(type, {"a": 1}, offered={"b": 2}, section="model")

    @pytest.mark.parametrize(
        ("function", "arguments", "said"),
        [
            (
                net,
                {"widht": 3},
                "net takes no argument 'widht'; it takes data_shape, width, depth; did you mean 'width'? @ model.widht",
            ),
            (net, {"data_shape": 1}, "net needs an argument 'width'; add it to the section @ model.width"),
            (by_position, {}, "by_position takes 'width' by position, and arguments are given by name @ model"),
            (lambda: 1, {"a": 1}, "TestBound.<lambda> takes no argument 'a'; it takes none @ model.a"),
        ],
    )
    def test_arguments_that_do_not_fit_are_named(self, function: Any, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(CodeInvalid) as caught:
            bound(function, arguments, offered={}, section="model")

        assert said == str(caught.value)


def test_what_a_call_raises_is_shown_without_frames_of_ours(write: Write) -> None:
    f = folders(write({"net.py": "def f():\n    raise ValueError('no')"})).load("net.py:f", path="model.name")

    with pytest.raises(CodeInvalid) as caught, running("net.py:f", path="model.name"):
        f()

    assert str(caught.value).startswith("net.py:f raised ValueError when it was called @ model.name")
    assert "in f" in str(caught.value)
    assert str(caught.value).endswith("  ValueError: no")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def train(s, n, r): return s['a']['b'], s.get('c', {})", {"a", "c"}),
        ("def train(s, n, r, data, *, max_batches): return 1", {"data", "max_batches"}),
        ("def train(s, n, r):\n    def inner(): return s['a']\n    return inner()", {"a"}),
        ("def train(s, n, r): return other(s)", None),
        ("def train(s, n, r): return {**s}", None),
        ("def train(s, n, r): return s[n]", None),
        ("def train(s, n, r):\n    s['a'] = 1\n    return s['a']", None),
        ("def train(s, n, r):\n    s = dict(n)\n    return s['a']", None),
        ("def train(s, n, r): return [locals()['s'], s['a']]", None),
        ("@wrapped\ndef train(s, n, r): return s['a']", None),
        ("def train(s, n, r): return s['a']\ntrain = wrapped(train)", None),
        ("def train(s, n, r): return s['a']\nif True:\n    from elsewhere import other as train", None),
        ("def train(*given): return given[0]['a']", None),
        ("from elsewhere import train", None),
        ("if True:\n    def train(s, n, r): return s['a']", None),
        ("def train(s, n, r: return", None),
    ],
)
def test_what_a_function_reads_of_its_settings_is_told_only_where_its_source_tells_all(
    source: str, expected: set[str] | None, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(source)

    assert expected == CodeFolders(folders=(tmp_path,)).settings_read("own.py:train")


def test_of_a_function_that_is_not_there_nothing_is_known() -> None:
    assert CodeFolders().settings_read("nowhere.py:train") is None
