"""Files appear whole or not at all, and only regular files of a bounded size are read."""

from __future__ import annotations

import os
import stat

import pytest

from pyrovae.files import check_regular, read_json, write_whole


def test_a_file_is_written_whole(tmp_path):
    path = tmp_path / "a.bin"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.bin"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"a\.bin' cannot be written: No space left on device"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_file_in_no_folder_is_named(tmp_path):
    with pytest.raises(OSError, match=r"a\.bin' cannot be written: No such file"):
        write_whole(tmp_path / "none" / "a.bin", b"")


def test_the_file_and_its_folder_are_flushed_before_and_after_the_rename(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(*args):
        calls.append("rename")
        replace(*args)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    write_whole(tmp_path / "a.bin", b"content")
    assert calls == ["file", "rename", "folder"]


def test_pipes_devices_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to("/dev/zero")
    for name, kind in (("pipe.json", "a pipe"), ("link.json", "a device"), ("", "a folder")):
        with pytest.raises(ValueError, match=f"must be a regular file, got {kind}"):
            check_regular(tmp_path / name)
        with pytest.raises(ValueError, match=f"must be a regular file, got {kind}"):
            read_json(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        check_regular(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{", "cut short or not JSON"),
        (b"\xff\xfe\xfd", "cut short or not JSON"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (b"[1e400]", "1e400 is too large"),
        (b"[" + b"9" * 10_000 + b"]", "cut short or not JSON"),
        (b" " * 5_000_000, "has 5 MB, more than the 4.194 MB that are read"),
    ],
)
def test_bad_json_is_one_line_with_the_name(tmp_path, content, said):
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_json(tmp_path / "c.json")
    assert "c.json" in str(caught.value)
    assert "\n" not in str(caught.value)
