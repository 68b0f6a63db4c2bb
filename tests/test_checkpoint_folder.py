"""A folder of steps always has a complete copy of the last one, and damaged steps are detected."""

import json
import os
import pathlib
import random
import shutil

import pytest

from jaxcnn.train import _checkpoint_folder


class Killed(BaseException):
    """Simulates the end of the process. No handler catches it."""


def write(folder, step, content, metric=None):
    """`checkpoint.save` without Orbax."""
    folder.mkdir(exist_ok=True)
    _checkpoint_folder.clean(folder)
    partial = folder / f"{step}.partial"
    (partial / "arrays" / "d").mkdir(parents=True)
    (partial / "arrays" / "d" / "0").write_bytes(content)
    about = {"format": 1, "step": step, "config": None, "metric": metric, "note": None, "versions": {}, "arrays": {}}
    _checkpoint_folder.finish(partial, json.dumps(about))


def read(folder):
    """The latest valid step and its content, as in `checkpoint.restore`."""
    _checkpoint_folder.recover(folder)
    for step in _checkpoint_folder.steps(folder)[::-1]:
        if _checkpoint_folder.damage(folder / str(step), step) is None:
            return step, (folder / str(step) / "arrays" / "d" / "0").read_bytes()
    return None


CALLS = ("rename", "unlink", "rmdir", "mkdir", "fsync", "open")


def killed_at(monkeypatch, at, action):
    """Whether the action was killed before its system call number `at`."""
    count = 0

    def killing(real):
        def call(*args, **options):
            nonlocal count
            count += 1
            if count == at:
                raise Killed
            return real(*args, **options)

        return call

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, killing(getattr(os, name)))
        try:
            action()
        except Killed:
            return True
    return False


def every_kill(monkeypatch, tmp_path, before, action, check):
    for at in range(1, 200):
        folder = tmp_path / str(at)
        shutil.copytree(before, folder)
        done = not killed_at(monkeypatch, at, lambda folder=folder: action(folder))
        check(folder, done)
        if done:
            return at
    return pytest.fail("there were more calls than expected")


@pytest.mark.parametrize("others", [(), (1, 2)])
def test_a_step_is_replaced_or_there(tmp_path, monkeypatch, others):
    before = tmp_path / "before"
    for step in (*others, 3):
        write(before, step, b"old")

    def action(folder):
        write(folder, 3, b"new")
        _checkpoint_folder.prune(folder, 1, 3)

    def check(folder, done):
        assert read(folder) in ((3, b"new"),) + (() if done else ((3, b"old"),))
        write(folder, 4, b"next")  # the next process removes what the killed one left
        assert all(path.name.isdigit() for path in folder.iterdir())
        assert read(folder) == (4, b"next")

    assert every_kill(monkeypatch, tmp_path, before, action, check) > 20


@pytest.mark.parametrize("keep", [1, 3])
def test_killed_while_pruning(tmp_path, monkeypatch, keep):
    before = tmp_path / "before"
    for step in range(1, 6):
        write(before, step, b"%d" % step, metric=float(step == 2))

    def check(folder, done):
        assert read(folder) == (5, b"5")
        _checkpoint_folder.clean(folder)
        _checkpoint_folder.prune(folder, keep, 5)
        assert _checkpoint_folder.steps(folder) == sorted({2, *range(6 - keep, 6)})
        assert all(
            _checkpoint_folder.damage(folder / str(step), step) is None for step in _checkpoint_folder.steps(folder)
        )
        assert all(path.name.isdigit() for path in folder.iterdir())

    every_kill(monkeypatch, tmp_path, before, lambda folder: _checkpoint_folder.prune(folder, keep, 5), check)


def test_recovering_may_be_killed_too(tmp_path, monkeypatch):
    before = tmp_path / "before"
    write(before, 1, b"old")
    (before / "1").rename(before / "1.removed")
    (before / "1.partial").mkdir()
    (before / "2.removed").mkdir()

    def check(folder, done):
        assert read(folder) == (1, b"old")
        if done:
            assert [path.name for path in folder.iterdir()] == ["1"]

    every_kill(monkeypatch, tmp_path, before, _checkpoint_folder.clean, check)


def test_a_partly_removed_step_is_not_recovered(tmp_path):
    write(tmp_path, 1, b"old")
    (tmp_path / "1" / "arrays" / "d" / "0").unlink()
    (tmp_path / "1").rename(tmp_path / "1.removed")
    _checkpoint_folder.recover(tmp_path)
    assert read(tmp_path) is None
    assert _checkpoint_folder.steps(tmp_path) == []


def test_a_removed_step_next_to_a_new_one_is_not_recovered(tmp_path):
    write(tmp_path, 1, b"old")
    shutil.copytree(tmp_path / "1", tmp_path / "1.removed")
    write(tmp_path / "b", 1, b"new")
    shutil.rmtree(tmp_path / "1")
    (tmp_path / "b" / "1").rename(tmp_path / "1")
    (tmp_path / "b").rmdir()
    (tmp_path / "2.removed").write_text("a file")
    (tmp_path / "3.partial").symlink_to(tmp_path / "1")
    assert read(tmp_path) == (1, b"new")
    _checkpoint_folder.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert read(tmp_path) == (1, b"new")


def test_other_files_are_kept(tmp_path):
    for name in ("notes.partial", "1.txt", "007.removed", "mine"):
        (tmp_path / name).mkdir()
    write(tmp_path, 7, b"7")
    assert {path.name for path in tmp_path.iterdir()} == {"notes.partial", "1.txt", "007.removed", "mine", "7"}
    assert _checkpoint_folder.steps(tmp_path) == [7]


@pytest.mark.parametrize("name", ["3", "1", "20"])
def test_a_step_under_another_name_is_damaged(tmp_path, name):
    write(tmp_path, 2, b"2")
    (tmp_path / "2").rename(tmp_path / name)
    assert f"about.json: belongs to step 2, not to step {name}" in _checkpoint_folder.damage(tmp_path / name, int(name))
    assert read(tmp_path) is None


def test_the_step_just_written_is_kept(tmp_path):
    for step, metric in ((3, 0.5), (4, 0.1), (2, None)):
        write(tmp_path, step, b"", metric)
        _checkpoint_folder.prune(tmp_path, 1, step)
    assert _checkpoint_folder.steps(tmp_path) == [2, 3, 4]
    write(tmp_path, 5, b"")
    _checkpoint_folder.prune(tmp_path, 1, 5)
    assert _checkpoint_folder.steps(tmp_path) == [3, 5]


def change(folder, step, /, **changes):
    """Replace the content of a step, and update its manifest."""
    path = folder / str(step)
    about = json.loads((path / "about.json").read_text()) | changes
    (path / "about.json").write_text(json.dumps(about))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(
        json.dumps(manifest | {"about.json": _checkpoint_folder.sha256(path / "about.json")})
    )


@pytest.mark.parametrize("metric", ["0.9", True, -(10**400), [1], {}, float("nan"), float("inf"), None])
def test_an_invalid_metric_is_ignored(tmp_path, metric):
    for step in (1, 2, 3):
        write(tmp_path, step, b"", metric=step / 10)
    change(tmp_path, 2, metric=metric)
    assert _checkpoint_folder.best(tmp_path) == 3
    _checkpoint_folder.prune(tmp_path, 1, 3)
    assert _checkpoint_folder.steps(tmp_path) == [3]


@pytest.mark.parametrize(
    "changes", [{"step": True}, {"step": "1"}, {"config": []}, {"arrays": None}, {"versions": 3}, {"format": 2}]
)
def test_an_invalid_about_is_damage(tmp_path, changes):
    write(tmp_path, 1, b"")
    change(tmp_path, 1, **changes)
    assert "about.json: " in _checkpoint_folder.damage(tmp_path / "1", 1)


@pytest.mark.parametrize("file", ["manifest.json", "about.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"", b"NaN", b"5", b"null", b'"x"'])
def test_json_that_cannot_be_read_is_damage(tmp_path, file, content):
    write(tmp_path, 1, b"")
    (tmp_path / "1" / file).write_bytes(content)
    assert _checkpoint_folder.damage(tmp_path / "1", 1)
    assert _checkpoint_folder.best(tmp_path) is None


def mutated(rng, content):
    """Bytes with some of them flipped, removed, duplicated, replaced or truncated."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(len(content) + 1), rng.randint(1, 20)
        match rng.randrange(6):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                del content[at : at + size]
            case 2:
                content[at:at] = content[at : at + size]
            case 3:
                content[at:at] = rng.choice([b"[" * 20_000, b"null", b"NaN", b"-1e999", b"\xff\x00", b'"', b"{}", b"9"])
            case 4:
                del content[at:]
            case 5:
                content[at : at + size] = rng.randbytes(size)
    return bytes(content)


@pytest.mark.parametrize("cases", [100, pytest.param(2000, marks=pytest.mark.full)])
def test_mutated_files_are_damage(tmp_path, cases):
    rng = random.Random(0)
    write(tmp_path, 1, b"first", metric=0.5)
    write(tmp_path, 2, b"second", metric=0.7)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    original = {path: path.read_bytes() for path in files}
    damaged = 0
    for _ in range(cases):
        path = rng.choice(files)
        path.write_bytes(mutated(rng, original[path]))
        found = read(tmp_path)
        # the content may be right although the manifest is written otherwise; it is never wrong
        assert found in ((1, b"first"), (2, b"second"))
        damaged += found == (1, b"first")
        _checkpoint_folder.best(tmp_path)
        path.write_bytes(original[path])
    assert damaged > 0.9 * cases


def test_a_mutated_about_with_a_manifest_that_agrees(tmp_path):
    """The hashes match, so the content must be validated."""
    rng = random.Random(1)
    write(tmp_path, 1, b"first", metric=0.5)
    path = tmp_path / "1"
    original, manifest = (path / "about.json").read_bytes(), json.loads((path / "manifest.json").read_text())
    for _ in range(100):
        (path / "about.json").write_bytes(mutated(rng, original))
        agreeing = manifest | {"about.json": _checkpoint_folder.sha256(path / "about.json")}
        (path / "manifest.json").write_text(json.dumps(agreeing))
        about, problem = _checkpoint_folder.read_about(path)
        assert (about is None) != (problem is None)
        if about is not None and _checkpoint_folder.damage(path, 1) is None:
            assert about["step"] == 1
        _checkpoint_folder.best(tmp_path)
        _checkpoint_folder.prune(tmp_path, 1, 1)


def test_the_same_folder_through_a_path_that_is_a_link(tmp_path):
    write(tmp_path / "real", 1, b"old")
    pathlib.Path(tmp_path / "link").symlink_to(tmp_path / "real")
    assert read(tmp_path / "link") == (1, b"old")
