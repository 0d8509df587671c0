from pathlib import Path

import pytest

from finegpr.catalog import Catalog
from finegpr.errors import ConfigError
from finegpr.home import from_home
from finegpr.object_stores import locate
from finegpr.weights import find_weights


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home" / "data").mkdir(parents=True)
    return tmp_path / "home"


def test_only_a_home_is_expanded(home):
    assert from_home("~/a b/x") == from_home(Path("~/a b/x")) == home / "a b" / "x"
    assert from_home("~") == home
    for path in ("a/~/x", "./~/x", "~old.csv", "/~", "x~"):
        assert str(from_home(path)) == str(Path(path)) or path == "./~/x"
    with pytest.raises(ConfigError, match="there is no home folder ~nobody-here, of ~nobody-here/x"):
        from_home("~nobody-here/x")


def test_roots_tables_and_weights_are_looked_for_at_home(home, monkeypatch):
    (home / "data" / "a.jpg").touch()
    (home / "t.csv").write_text("path\na.jpg\n")
    catalog = Catalog.index("~/data", layout="table", table="~/t.csv")
    assert catalog.root == locate("~/data") == home / "data"
    (home / "vgg19.safetensors").write_bytes(b"x")
    assert find_weights("vgg19", "~/vgg19.safetensors").path == home / "vgg19.safetensors"
    monkeypatch.setenv("AOST_WEIGHTS", "~")
    assert find_weights("vgg19", "imagenet").path == home / "vgg19.safetensors"
