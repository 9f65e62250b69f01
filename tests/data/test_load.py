"""What load accepts, and what is imported for it."""

import subprocess
import sys
import textwrap

import pytest

from kempe_nb import data


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "imagenet"}, ["name", "'imagenet'", *data.DATASETS]),
        ({"name": None}, ["name", "None", "digits"]),
        ({"name": "digits", "split": "all"}, ["split", "'all'", "'train', 'test'"]),
        ({"name": "mnist", "split": "valid"}, ["split", "'valid'", "'train', 'test'"]),
        ({"name": "stdlib", "split": "valid"}, ["split", "'valid'", "'all', 'train', 'test'"]),
        ({"name": "mnist", "limit": 0}, ["limit", "0", "at least 1"]),
        ({"name": "digits", "limit": -3}, ["limit", "-3", "at least 1"]),
        ({"name": "digits", "limit": 2.5}, ["limit", "2.5", "integer"]),
        ({"name": "digits", "limit": True}, ["limit", "True", "integer"]),
        ({"name": "digits", "split": "test", "limit": 360}, ["limit", "360", "1 to 359"]),
        ({"name": "mnist", "limit": 60_001}, ["limit", "60001", "1 to 60000"]),
        ({"name": "cifar10", "split": "test", "limit": 10_001}, ["limit", "10001", "10000"]),
        ({"name": "stdlib", "limit": 5}, ["limit", "5", "None"]),
        ({"name": "digits", "seed": -1}, ["seed", "-1", "integer"]),
        ({"name": "digits", "seed": "0"}, ["seed", "'0'", "integer"]),
        ({"name": "digits", "folder": "x"}, ["folder", "'x'", "None"]),
        ({"name": "stdlib", "folder": "x"}, ["folder", "'x'", "None"]),
        ({"name": "mnist", "folder": 3}, ["folder", "3", "path"]),
        ({"name": "mnist", "folder": ""}, ["folder", "''", "path"]),
    ],
)
def test_a_bad_argument_is_refused_before_any_work(arguments, named, cache, site, mnist):
    with pytest.raises(ValueError) as caught:
        data.load(**arguments)
    assert str(caught.value).startswith(f"{named[0]} is {named[1]}; accepted: ")
    assert all(word in str(caught.value) for word in named)
    assert not cache.exists()
    assert not site.requests


def test_a_set_imports_the_modules_of_its_own_format_only(tmp_path):
    (tmp_path / "module.py").write_text("x = 1")
    script = f"""
        import sys
        import sysconfig
        from kempe_nb import data

        def newly_imported():
            names = {{name.removeprefix("kempe_nb.data.") for name in sys.modules
                     if name.startswith("kempe_nb.data.")}} - known
            known.update(names)
            return names

        known = set()
        always = {{"cache", "corpus", "errors", "images", "text_files",
                  "torchvision_import"}}
        assert newly_imported() == always, known
        data.load("digits")
        assert newly_imported() == {{"digits"}}, known
        sysconfig.get_path = lambda name: {str(tmp_path)!r}
        data.load("stdlib")
        assert newly_imported() == {{"stdlib"}}, known
        assert "torchvision" not in sys.modules
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_every_public_name_is_there_and_no_other():
    assert all(hasattr(data, name) for name in data.__all__)
    assert not hasattr(data, "no_such_name")
