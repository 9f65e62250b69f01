"""How two workers share the tests: by file, by page, and the long ones one by one."""

from pathlib import Path

import pytest

from tests.conftest import BY_PAGE, SPREAD, kept_together


def test_the_tests_of_a_page_stay_together_and_those_of_another_do_not(request):
    assert (Path(request.config.rootpath) / BY_PAGE).is_file()
    ids = ["a[x/1_y]", "b[light-x/1_y]", "c[390-x/1_y]"]
    assert len({kept_together(f"{BY_PAGE}::test_{each}") for each in ids}) == 1
    other = {kept_together(f"{BY_PAGE}::test_{each}") for each in ["a[x/2_y]", "a[x]", "d", "e"]}
    assert len(other | {kept_together(f"{BY_PAGE}::test_a[x/1_y]")}) == 5


@pytest.mark.parametrize("file", SPREAD)
def test_a_file_whose_tests_are_spread_exists_under_its_name(file, request):
    assert (Path(request.config.rootpath) / file).is_file()
    first, second = f"{file}::test_a[x/y::z]", f"{file}::test_a[x]"
    assert kept_together(first) != kept_together(second)


def test_another_file_stays_together(request):
    here = request.node.nodeid
    assert kept_together(here) == kept_together("tests/test_sharing.py::test_other[a]")
