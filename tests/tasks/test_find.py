"""Files are found in a folder, the cache, an installed package, a wheel or a Debian package, and checked."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from archives import CONTENT, DEB, WHEEL, source, write_deb, write_wheel
from blake3 import blake3

from plait.errors import InputError
from plait.tasks._archive import unpack
from plait.tasks._find import Unavailable, digest_of, find
from plait.tasks._packages import Hub, PyPI


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own, and a pip that asks no index."""
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PLAIT_DATA", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setattr("plait.tasks._find._ASKED", {})
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


def kept_in(cache: Path) -> list[str]:
    """What the cache has, locks left out."""
    return [path.name for path in cache.glob("data/*") if path.suffix != ".lock"]


def test_files_in_the_users_folder_are_taken_where_they_lie(folder, own_cache):
    (folder / "table").mkdir()
    (folder / "table" / "table.csv").write_bytes(CONTENT)
    assert find(source(WHEEL), folder) == folder / "table"
    assert not own_cache.exists()


def test_the_environment_names_the_folder(folder, monkeypatch):
    (folder / "table").mkdir()
    (folder / "table" / "table.csv").write_bytes(CONTENT)
    monkeypatch.setenv("PLAIT_DATA", str(folder))
    assert find(source(WHEEL)) == folder / "table"


@pytest.mark.parametrize(("package", "write"), [(WHEEL, write_wheel), (DEB, write_deb)])
def test_a_package_file_in_the_users_folder_is_unpacked(folder, own_cache, package, write):
    write(folder)
    found = find(source(package), folder)
    assert found.is_relative_to(own_cache)
    assert {path.name: path.read_bytes() for path in found.iterdir()} == {"table.csv": CONTENT}


def test_a_wrong_digest_names_the_file_and_both_digests_and_keeps_nothing(folder, own_cache):
    write_wheel(folder, b"other")
    with pytest.raises(InputError) as caught:
        find(source(WHEEL), folder)
    message = str(caught.value)
    for part in ("plait_data_for_tests-1.0", blake3(CONTENT).hexdigest(), blake3(b"other").hexdigest()):
        assert part in message
    assert not isinstance(caught.value, Unavailable)
    assert kept_in(own_cache) == []


def test_a_wrong_file_in_the_users_folder_is_refused(folder):
    (folder / "table").mkdir()
    (folder / "table" / "table.csv").write_bytes(b"other")
    with pytest.raises(InputError, match=r"table\.csv: `table` has the digest .* is expected"):
        find(source(WHEEL), folder)


def test_a_damaged_cache_is_told_with_what_to_delete(folder):
    write_wheel(folder)
    found = find(source(WHEEL), folder)
    (found / "table.csv").write_bytes(b"damaged")
    with pytest.raises(InputError, match=f"delete {found}"):
        find(source(WHEEL))


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        find(source(WHEEL), tmp_path / "nowhere")


def test_a_cache_that_cannot_be_written_is_told(folder, own_cache):
    write_wheel(folder)
    own_cache.write_text("a file where the cache should be")
    with pytest.raises(InputError, match="PLAIT_CACHE"):
        find(source(WHEEL), folder)


def test_pip_downloads_a_wheel_and_the_cache_keeps_it(folder, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    write_wheel(folder)
    first = find(source(WHEEL))
    shutil.rmtree(folder)
    assert find(source(WHEEL)) == first
    assert (first / "table.csv").read_bytes() == CONTENT


def test_what_cannot_be_had_is_told_with_every_reason(own_cache):
    with pytest.raises(Unavailable) as caught:
        find(source(WHEEL, DEB))
    message = str(caught.value)
    assert "PyPI package plait-data-for-tests 1.0: pip says: No matching distribution found" in message
    assert "Debian package plait-data-for-tests 1:1.0-2: " in message
    assert "PLAIT_DATA" in message
    assert kept_in(own_cache) == []


def test_an_installed_package_is_read_where_it_is(own_cache):
    folder = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/data")))
    package = PyPI("scikit-learn", "0.0", "sklearn/datasets/data")
    content = (folder / "iris.csv").read_bytes()
    assert find(source(package, files="iris.csv", content=content)) == folder
    assert not own_cache.exists()


def test_an_installed_package_of_another_version_is_passed_over():
    """Its file differs, so the pinned wheel is asked for."""
    package = PyPI("scikit-learn", "0.0", "sklearn/datasets/data")
    with pytest.raises(Unavailable, match=r"scikit-learn==0\.0"):
        find(source(package, files="iris.csv", content=b"as it was in 0.0"))


def test_the_hub_is_asked_before_a_package_and_read_from_its_cache(tmp_path, monkeypatch):
    """A snapshot in the hub's own cache stands for a hub that can be reached."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--plait--table" / "snapshots" / commit
    (snapshot / "data").mkdir(parents=True)
    (snapshot / "data" / "table.csv").write_bytes(CONTENT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = find(source(Hub("plait/table", commit, "data"), WHEEL))
    assert (found / "table.csv").read_bytes() == CONTENT
    assert found.is_relative_to(tmp_path / "cache")


def test_a_pattern_has_one_digest_over_all_its_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.csv").write_bytes(b"1")
    (tmp_path / "y.csv").write_bytes(b"2")
    (tmp_path / "z.txt").write_bytes(b"3")
    lines = f"{blake3(b'1').hexdigest()}  a/x.csv\n{blake3(b'2').hexdigest()}  y.csv\n"
    assert digest_of(source(files="**/*.csv"), tmp_path) == blake3(lines.encode()).hexdigest()


@pytest.mark.parametrize("compression", ["gz", "xz", "bz2"])
def test_a_debian_package_is_unpacked_by_python_alone(folder, tmp_path, compression, monkeypatch):
    monkeypatch.setenv("PATH", "")
    deb = write_deb(folder, compression=compression)
    assert DEB.unpack(deb, "table.csv", tmp_path / "out") == 1
    assert (tmp_path / "out" / "table.csv").read_bytes() == CONTENT


def test_an_archive_cannot_write_outside_of_its_folder(tmp_path):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../escaped", "x")
    with pytest.raises(ValueError, match="outside of itself"):
        unpack(path, tmp_path / "out", lambda name: name)
    assert not (tmp_path / "escaped").exists()


def read_table(folder: Path) -> bytes:
    return (find(source(WHEEL), folder) / "table.csv").read_bytes()


@pytest.mark.slow
def test_processes_may_look_for_the_same_files_at_once(folder, own_cache):
    write_wheel(folder)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(read_table, [folder] * 6, chunksize=1) == [CONTENT] * 6
    assert kept_in(own_cache) == [f"table-{blake3(CONTENT).hexdigest()[:12]}"]


@pytest.mark.slow
def test_apt_downloads_a_debian_package(folder, tmp_path, monkeypatch):
    """From a repository of the test's own, with apt's settings and lists in its folder."""
    deb = write_deb(folder)
    fields = subprocess.run(["dpkg-deb", "-f", deb], capture_output=True, text=True, check=True).stdout
    renamed = deb.rename(folder / deb.name.replace("%3a1.0", "_1.0"))
    digest = hashlib.sha256(renamed.read_bytes()).hexdigest()
    entry = f"{fields}Filename: ./{renamed.name}\nSize: {renamed.stat().st_size}\nSHA256: {digest}\n\n"
    (folder / "Packages").write_text(entry)
    for part in ("state/lists/partial", "apt/archives/partial", "etc"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "etc" / "list").write_text(f"deb [trusted=yes] file:{folder} ./\n")
    (tmp_path / "etc" / "apt.conf").write_text(
        f'Dir::State "{tmp_path}/state"; Dir::Cache "{tmp_path}/apt"; Dir::State::status "/dev/null";'
        f'Dir::Etc::sourcelist "{tmp_path}/etc/list"; Dir::Etc::sourceparts "/dev/null";'
        'APT::Sandbox::User "";'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "etc" / "apt.conf"))
    subprocess.run(["apt-get", "-q", "update"], capture_output=True, check=True)
    found = find(source(DEB))
    assert (found / "table.csv").read_bytes() == CONTENT
