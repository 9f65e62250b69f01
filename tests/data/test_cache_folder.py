"""Where data sets are kept."""

import os

from kempe_nb import data


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("KEMPE_NB_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert data.cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("KEMPE_NB_DATA", os.path.join("~", "here"))
    assert data.cache_folder() == tmp_path / "here"
    monkeypatch.setenv("KEMPE_NB_DATA", "")
    assert data.cache_folder() == tmp_path / "xdg" / "kempe_nb"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert data.cache_folder() == tmp_path / ".cache" / "kempe_nb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data.cache_folder() == tmp_path / ".cache" / "kempe_nb"
