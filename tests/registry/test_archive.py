"""Model archives: export and import, and rejection of anything else."""

import io
import json
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ddpmctl.config import Config
from ddpmctl.errors import CheckpointError, UsageError
from ddpmctl.exports.api import export
from ddpmctl.registry import Registry
from ddpmctl.registry.archive import import_archive
from ddpmctl.registry.manifest import SCHEMA
from tests.builders import WEIGHTS, register, reseal

from .support import tree


@pytest.fixture
def packed(registry: Registry, tmp_path: Path) -> Path:
    register(registry, "tiny", step=20)
    path = tmp_path / "tiny.zip"
    export(registry.open("tiny"), path)
    return path


def test_a_model_comes_back_as_it_went(registry: Registry, packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert sorted(archive.namelist()) == ["README.md", "history.csv", "manifest.json", "weights.safetensors"]
        assert archive.testzip() is None
    made = import_archive(registry, packed, "again")
    assert made == registry.models / "again" / "00000020"
    before, after = registry.open("tiny"), registry.open("again")
    assert (after.manifest, after.digest, after.history) == (before.manifest, before.digest, before.history)
    assert np.array_equal(after.weights()["layer"], WEIGHTS["layer"])
    after.verify()


def test_the_same_model_makes_the_same_archive(registry: Registry, packed: Path) -> None:
    before = packed.read_bytes()
    export(registry.open("tiny"), packed)
    assert packed.read_bytes() == before


def test_a_packed_archive_is_taken_too(registry: Registry, packed: Path, tmp_path: Path) -> None:
    again = tmp_path / "zipped.zip"
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(again, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert import_archive(registry, again, None).parent.name == "zipped"


@pytest.mark.parametrize(
    ("file", "expected"),
    [("my model!.zip", "my-model"), ("latest.zip", "strokes-quick-1"), ("é.zip", "strokes-quick-1")],
)
def test_a_name_is_made_of_the_file_s(registry: Registry, packed: Path, file: str, expected: str) -> None:
    path = packed.with_name(file)
    shutil.move(packed, path)
    assert import_archive(registry, path, None).parent.name == expected


def test_a_taken_name_is_refused(registry: Registry, packed: Path) -> None:
    with pytest.raises(UsageError, match="a model named 'tiny' already exists"):
        import_archive(registry, packed, None)
    with pytest.raises(UsageError, match="is not a valid model name"):
        import_archive(registry, packed, "../x")


Members = list[tuple[zipfile.ZipInfo, bytes]]


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def written(path: Path, content: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings(action="ignore"):
        for info, data in content:
            archive.writestr(info, data, info.compress_type)


def renamed(old: str, new: str) -> Callable[[Members], Members]:
    def edit(content: Members) -> Members:
        return [(zipfile.ZipInfo(new) if info.filename == old else info, data) for info, data in content]

    return edit


def added(name: str, data: bytes = b"x") -> Callable[[Members], Members]:
    return lambda content: [*content, (zipfile.ZipInfo(name), data)]


def linked(content: Members) -> Members:
    for info, _ in content:
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return content


def bomb(content: Members) -> Members:
    info = zipfile.ZipInfo("weights.safetensors")
    info.compress_type = zipfile.ZIP_DEFLATED
    return [(info, bytes(50_000_000)), *(pair for pair in content if pair[0].filename != "weights.safetensors")]


def manifest_with(old: str, new: str) -> Callable[[Members], Members]:
    def edit(content: Members) -> Members:
        return [
            (info, reseal(data.decode().replace(old, new, 1)).encode() if info.filename == "manifest.json" else data)
            for info, data in content
        ]

    return edit


ONLY = "it must contain exactly weights.safetensors, manifest.json, history.csv"


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (added("../../evil"), ONLY),
        (added("/etc/evil"), ONLY),
        (added("sub/"), ONLY),
        (added("weights.safetensors"), ONLY),
        (renamed("history.csv", "..\\history.csv"), ONLY),
        (lambda content: content[:2], ONLY),
        (lambda content: [], ONLY),
        (linked, "weights.safetensors is not a regular file"),
        (bomb, r"weights.safetensors unpacks to 50000000 bytes from \d+"),
        (manifest_with('"seed": 0', '"seed": "x"'), r"Expected `int`, got `str` - at `\$\.run\.seed`"),
        (manifest_with('"size": ', '"size": 9'), "weights.safetensors does not have the size in the manifest"),
        (manifest_with('"sha256": "', '"sha256": "0'), "sha256 must be 64 hexadecimal digits"),
        (manifest_with('"parameters": 6', '"parameters": 7'), "weights.safetensors: it does not contain 7 parameters"),
        (
            manifest_with(f'"schema": {SCHEMA}', f'"schema": {SCHEMA + 1}'),
            f"it has schema {SCHEMA + 1} but this ddpmctl supports up to {SCHEMA}: upgrade ddpmctl",
        ),
    ],
)
def test_what_export_would_not_write_is_refused_before_anything_lands(
    registry: Registry, packed: Path, edit: Callable[[Members], Members], why: str
) -> None:
    written(packed, edit(members(packed)))
    before = tree(registry.home)
    with pytest.raises(CheckpointError, match=rf"^{packed} is not an archive of a model: {why}") as caught:
        import_archive(registry, packed, "evil")
    assert caught.value.hint == "create one: ddpmctl export MODEL FILE.zip"
    assert tree(registry.home) == before


def test_a_size_that_lies_is_found_out(registry: Registry, packed: Path) -> None:
    data = packed.read_bytes()
    size = next(info.file_size for info, _ in members(packed) if info.filename == "weights.safetensors")
    lying = data.replace(size.to_bytes(4, "little"), (size - 1).to_bytes(4, "little"))
    packed.write_bytes(lying)
    with pytest.raises(CheckpointError, match="is not an archive of a model"):
        import_archive(registry, packed, "evil")
    assert registry.names() == ["tiny"]


@pytest.mark.parametrize("data", [b"", b"PK", b"no zip at all" * 99])
def test_what_is_no_zip_is_refused(registry: Registry, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(CheckpointError, match="is not an archive of a model"):
        import_archive(registry, tmp_path / "x.zip", None)
    with pytest.raises(CheckpointError, match=r"does not exist$"):
        import_archive(registry, tmp_path / "missing.zip", None)
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        import_archive(registry, tmp_path, None)
    assert not registry.models.exists()


def test_a_damaged_model_is_not_exported(registry: Registry, tmp_path: Path) -> None:
    path = register(registry, "tiny") / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="its sha256 is not the one in the manifest"):
        export(registry.open("tiny"), tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_an_archive_is_plain(packed: Path) -> None:
    """Anybody can read it without this tool."""
    from safetensors.numpy import load

    with zipfile.ZipFile(io.BytesIO(packed.read_bytes())) as archive:
        assert np.array_equal(load(archive.read("weights.safetensors"))["layer"], WEIGHTS["layer"])
        assert json.loads(archive.read("manifest.json"))["schema"] == SCHEMA
        assert archive.read("history.csv") == b"epoch,step\n1,10\n"


def test_a_name_inside_an_archive_leads_nowhere(registry: Registry, packed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    edit = manifest_with('"name": "strokes:300"', f'"name": "{outside}/x"')
    path = tmp_path / "latest.zip"
    written(path, edit(members(packed)))
    assert import_archive(registry, path, None).parent == registry.models / "model-1"
    assert not outside.exists()


def test_the_card_tells_what_is_needed_to_judge_and_to_make_it_again(registry: Registry, packed: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        told = archive.read("README.md").decode()
    manifest = registry.open("tiny").manifest
    for words in (
        "## Data",
        "## Training configuration",
        "## Command",
        "## Metrics",
        "## Limitations",
        "Licence: not specified",
    ):
        assert words in told
    assert manifest.files["weights.safetensors"].sha256 in told
    assert f"--seed {manifest.run.seed} --max-steps {manifest.run.planned_steps}" in told
    export(registry.open("tiny"), packed, "CC0-1.0")
    with zipfile.ZipFile(packed) as archive:
        told = archive.read("README.md").decode()
    assert told.startswith('---\nlicense: "CC0-1.0"\n')
    assert "- Licence: CC0-1.0" in told


def test_an_archive_from_before_there_were_cards_is_taken(registry: Registry, packed: Path, tmp_path: Path) -> None:
    before = tmp_path / "before.zip"
    written(before, [member for member in members(packed) if member[0].filename != "README.md"])
    assert import_archive(registry, before, None).parent.name == "before"


def test_bare_weights_carry_their_settings(registry: Registry, tmp_path: Path) -> None:
    register(registry, "tiny", step=20)
    checkpoint, path = registry.open("tiny"), tmp_path / "tiny.safetensors"
    assert export(checkpoint, path) == path.stat().st_size
    with safe_open(path, "numpy") as opened:
        assert opened.get_tensor("layer").tolist() == WEIGHTS["layer"].tolist()
        about = opened.metadata()
    assert Config.from_dict(json.loads(about["config"])) == checkpoint.manifest.config
    assert tuple(json.loads(about["classes"])) == checkpoint.manifest.classes
    assert about["digest"] == checkpoint.digest
