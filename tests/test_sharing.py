"""How two workers share the tests: by file, and the long ones one by one."""

from pathlib import Path

import pytest

from tests.conftest import SPREAD, kept_together


@pytest.mark.parametrize("file", SPREAD)
def test_a_file_whose_tests_are_spread_exists_under_its_name(file, request):
    assert (Path(request.config.rootpath) / file).is_file()
    first, second = f"{file}::test_a[x/y::z]", f"{file}::test_a[x]"
    assert kept_together(first) != kept_together(second)


def test_another_file_stays_together(request):
    here = request.node.nodeid
    assert kept_together(here) == kept_together("tests/test_sharing.py::test_other[a]")
