"""Usage errors (exit 2) and failures (exit 1): one sentence, a hint, and no files left behind."""

import ctypes
import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ddpmctl.registry.manifest import SCHEMA
from tests.builders import rewrite_manifest
from tests.conftest import Cli, Result, clean_environment

from .support import Running, complaint, copy_model, tree

LABELS = "labels of this model: 0 to 9, or zero, one, two, three, four, five, six, seven, eight, nine"

TYPED_WRONG: list[tuple[str, str, str]] = [
    ("generate 12", "unknown label '12'", LABELS),
    ("generate 8 12", "unknown label '12'", LABELS),
    ("generate eigth", "unknown label 'eigth'", "did you mean eight?"),
    ("generate -- -1", "unknown label '-1'", LABELS),
    ("animate 12", "unknown label '12'", LABELS),
    ("animate thre", "unknown label 'thre'", "did you mean three?"),
    ("generate 8 --sampler dpmp", "unknown sampler 'dpmp'", "did you mean dpmpp?"),
    ("grid --sampler euler", "unknown sampler 'euler'", "one of: dpmpp, dpmpp-sde, ddim, ddpm"),
    *(
        (
            f"{command} --steps {steps}",
            f"{steps} steps {'exceed the 1000 timesteps of this model' if steps > 0 else 'are too few'}",
            "--steps must be in 1..1000",
        )
        for command, steps in [("generate 8", 0), ("generate 8", -5), ("grid", 1001), ("animate 3", 0)]
    ),
    (
        "generate 8 --guidance -1",
        "--guidance should be greater than or equal to 0, not '-1'",
        "--guidance must be in 0..100",
    ),
    (
        "generate 8 --guidance 101",
        "--guidance should be less than or equal to 100, not '101'",
        "--guidance must be in 0..100",
    ),
    ("generate 8 --guidance-interval x", "'x' is not an interval", "--guidance-interval 0.3:0.85"),
    (
        "grid --guidance-interval 0.9:0.1",
        "invalid guidance interval: guidance_interval must be two numbers in 0..1, the lower one first",
        "for example --guidance-interval 0.3:0.85",
    ),
    (
        "generate 8 --guidance 1 --guidance-interval 0.3:0.8",
        "--guidance-interval has no effect with guidance 1.0",
        "--guidance 1.5 --guidance-interval 0.3:0.85",
    ),
    ("generate 8 --precision fp8", "unknown precision 'fp8'", "one of: auto, fp32, bf16"),
    (
        "train --accumulate 0",
        "--accumulate should be greater than or equal to 1, not '0'",
        "--accumulate must be at least 1",
    ),
    ("train --clip -1", "--clip should be greater than or equal to 0, not '-1'", "--clip must be at least 0"),
    (
        "generate 8 --guidance nan",
        "--guidance should be less than or equal to 100, not 'nan'",
        "--guidance must be in 0..100",
    ),
    ("generate 8 --seed -1", "the seed -1 is out of range", "--seed must be in 0..9223372036854775806"),
    ("generate 8 --seed 9999999999999999999", "the seed 9999999999999999999 is out of range", "*"),
    ("generate 8 -n 0", "--count should be greater than or equal to 1, not '0'", "--count must be at least 1"),
    ("generate 8 -n 1000001", "the count 1000001 is out of range", "-n must be in 1..1000000"),
    (
        "generate 8 --upscale 0",
        "--upscale should be greater than or equal to 1, not '0'",
        "--upscale must be at least 1",
    ),
    (
        "generate 8 --upscale -4",
        "--upscale should be greater than or equal to 1, not '-4'",
        "--upscale must be at least 1",
    ),
    ("grid --upscale 0", "--upscale should be greater than or equal to 1, not '0'", "--upscale must be at least 1"),
    (
        "animate 3 --upscale 0",
        "--upscale should be greater than or equal to 1, not '0'",
        "--upscale must be at least 1",
    ),
    ("generate 8 --upscale 100000", "upscaling by 100000 would need 9,536.7 GiB *", "--upscale 1024 or less"),
    ("generate 8 --upscale 99999999999999999999", "upscaling by 99999999999999999999 would need *", "*"),
    ("generate 8 -n 1000000 --upscale 100", "upscaling by 100 would need 9,536.7 GiB *", "--upscale 1 or less"),
    ("grid --rows 1000 --upscale 100", "upscaling by 100 would need * GiB *", "--upscale 10 or less"),
    ("animate 3 --frames 1000 --upscale 100", "upscaling by 100 would need * GiB *", "--upscale 32 or less"),
    ("generate 8 --interpolation cubik", "unknown interpolation 'cubik'", "did you mean cubic?"),
    ("animate", "missing argument LABEL", "ddpmctl animate 3, or ddpmctl animate --training MODEL"),
    (
        "animate 3 --training tiny",
        "--training takes no label and no sampling options",
        "ddpmctl animate --training MODEL",
    ),
    ("animate 3 --interpolation x", "unknown interpolation 'x'", "one of: nearest, linear, cubic, lanczos"),
    ("generate 8 -o eight.jpg", "'eight.jpg' has an unsupported file extension", "use .png or .npz"),
    ("generate 8 -o eight", "'eight' has an unsupported file extension", "use .png or .npz"),
    ("grid -o sheet.gif", "'sheet.gif' has an unsupported file extension", "use .png"),
    ("animate 3 -o three.mp4", "'three.mp4' has an unsupported file extension", "use .gif or .webp or .png"),
    ("grid --rows 0", "--rows should be greater than or equal to 1, not '0'", "--rows must be in 1..1000"),
    ("animate 3 --frames 0", "--frames should be greater than or equal to 1, not '0'", "--frames must be in 1..1000"),
    ("animate 3 --fps 0", "--fps should be greater than or equal to 1, not '0'", "--fps must be in 1..50"),
    ("animate 3 --fps 100", "--fps should be less than or equal to 50, not '100'", "--fps must be in 1..50"),
    ("animate 3 --fps nan", "--fps should be less than or equal to 50, not 'nan'", "--fps must be in 1..50"),
    ("animate 3 --hold -1", "--hold should be greater than or equal to 0, not '-1'", "--hold must be in 0..60"),
    ("animate 3 --show y", "unknown view 'y'", "one of: x, x0, both"),
    ("generate 8 --device gpu", "unknown device 'gpu'", "*"),
    ("generate 8 --device cuda:x", "unknown device 'cuda:x'", "--device must be auto, cpu, cuda, cuda:N or mps"),
    ("train --preset kwick", "unknown preset 'kwick'", "did you mean quick?"),
    ("train --preset Standard", "unknown preset 'Standard'", "did you mean standard?"),
    ("train --dataset minst", "unknown dataset 'minst'", "did you mean mnist?"),
    (
        "train --dataset imagenet",
        "unknown dataset 'imagenet'",
        "one of: mnist, fashion-mnist, *",
    ),
    ("generate", "missing argument LABEL", "ddpmctl generate 8, or ddpmctl generate --like IMAGE"),
    ("train --dataset strokes:5", "strokes:5: the count must be in 10..1000000", "--dataset strokes:20000"),
    ("train --dataset strokes:abc", "strokes:abc: the count must be in 10..1000000", "--dataset strokes:20000"),
    ("train --dataset mnist:5", "the dataset mnist takes no argument*", "--dataset mnist"),
    ("train --epochs 0", "--epochs should be greater than or equal to 1, not '0'", "--epochs must be in 1..1000000"),
    ("train --epochs -3", "--epochs should be greater than or equal to 1, not '-3'", "--epochs must be in 1..1000000"),
    (
        "train --batch-size 0",
        "--batch-size should be greater than or equal to 1, not '0'",
        "--batch-size must be in 1..65536",
    ),
    ("train --lr 0", "invalid settings: the learning rate must be in (0, 1]", "ddpmctl train --help"),
    ("train --lr nan", "invalid settings: the learning rate must be in (0, 1]", "ddpmctl train --help"),
    ("train --patience 0", "--patience should be greater than or equal to 1, not '0'", "--patience must be at least 1"),
    (
        "train --schedule linear --timesteps 49",
        "invalid settings: a linear schedule needs at least 50 timesteps",
        "ddpmctl train --help",
    ),
    ("train --schedule cosin", "unknown schedule 'cosin'", "did you mean cosine?"),
    ("train --target noise", "unknown target 'noise'", "one of: epsilon, v, x0"),
    ("train --max-time 90", "'90' is not a duration", "for example 90s, 10m or 2h"),
    ("train --max-time 0s", "'0s' is not a duration", "for example 90s, 10m or 2h"),
    ("train --device tpu", "unknown device 'tpu'", "*"),
    ("train --precision fp16", "unknown precision 'fp16'", "*"),
    ("train --seed -1", "the seed -1 is out of range", "--seed must be in 0..9223372036854775806"),
    *(
        (
            f"train --name {name}",
            f"'{name}' is not a valid model name",
            "use letters, digits, '.', '-' and '_', starting with a letter or digit; not 'latest'",
        )
        for name in ("latest", "a/b", "../a", ".a", "ä", "a:b", "a.lock", "a" * 65)
    ),
    (
        "train --name tiny",
        "a model named 'tiny' already exists",
        "choose a different --name, or replace it with --force",
    ),
]


def matches(said: str, pattern: str) -> bool:
    """Whether words are as expected, where ``*`` stands for any."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), said) is not None


@pytest.mark.parametrize(("typed", "error", "hint"), TYPED_WRONG, ids=[typed for typed, _, _ in TYPED_WRONG])
def test_what_is_typed_wrong_exits_2(
    tiny_here: Cli, tiny_home: Path, tmp_path: Path, typed: str, error: str, hint: str
) -> None:
    models = tree(tiny_home)
    said = complaint(tiny_here(*typed.split()), 2)
    assert matches(said[0], error), said
    assert matches(said[1], hint), said
    assert list(tmp_path.iterdir()) == []
    assert tree(tiny_home) == models


@pytest.mark.parametrize("name", ["", "a b", "a\n", "latest"])
def test_a_name_that_can_be_no_folder_is_refused(cli: Cli, tmp_path: Path, name: str) -> None:
    done = cli("train", "--name", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a valid model name\n\nhint: use letters, digits" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "error", "hint"),
    [
        ("generat 8", "unknown command 'generat'", "did you mean generate?"),
        ("zzz", "unknown command 'zzz'", "one of: demo, train, *"),
        ("models lss", "unknown command 'lss'", "did you mean ls?"),
        ("generate 8 --stps 3", "no such option '--stps'", "did you mean --steps?"),
        ("generate 8 --zzz", "no such option: --zzz", "ddpmctl generate --help"),
        ("generate 8 --upscale two", "--upscale should be a valid integer, not 'two'", "*"),
        ("train --epochs 1.5", "--epochs should be a valid integer, not '1.5'", "*"),
        ("inspect a b", "got unexpected extra argument(s) (b)", "ddpmctl inspect --help"),
        ("export", "missing argument 'MODEL'", "ddpmctl export --help"),
        ("models export", "ddpmctl models export is another command now", "ddpmctl export MODEL FILE.zip"),
        ("train --epochs", "option '--epochs' requires an argument", "ddpmctl *--help"),
    ],
)
def test_what_does_not_parse_exits_2_and_says_what_was_meant(
    tiny_here: Cli, tmp_path: Path, typed: str, error: str, hint: str
) -> None:
    said = complaint(tiny_here(*typed.split()), 2)
    assert matches(said[0], error), said
    assert matches(said[1], hint), said
    assert list(tmp_path.iterdir()) == []


def test_the_classic_network_cannot_be_guided(here: Cli) -> None:
    trained = ("--preset", "classic", "--dataset", "strokes:20", "--epochs", 1, "--device", "cpu")
    assert here("train", *trained).returncode == 0
    assert complaint(here("generate", "8", "--guidance", 1.5), 2) == (
        "this model has no null class and does not support guidance",
        "--guidance 1.0, or omit it",
    )
    assert here("generate", "8", "--guidance", 1.0, "--steps", 2).stdout == "eight.png\n"


@pytest.mark.parametrize("typed", ["generate 8", "grid", "animate 3", "inspect", "inspect latest"])
def test_there_is_no_model_yet(here: Cli, tmp_path: Path, typed: str) -> None:
    assert complaint(here(*typed.split()), 1) == (
        "no models yet",
        "train one: ddpmctl demo, or ddpmctl train",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("generate 8 --model tinny", "did you mean tiny?"),
        ("grid -m nothing-like-it", "list models: ddpmctl models"),
        ("animate 3 -m tinny", "did you mean tiny?"),
        ("inspect tinny", "did you mean tiny?"),
    ],
)
def test_there_is_no_such_model(tiny_here: Cli, tmp_path: Path, typed: str, hint: str) -> None:
    name = typed.rpartition(" ")[2]
    assert complaint(tiny_here(*typed.split()), 1) == (f"unknown model '{name}'", hint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", ["generate 8", "grid", "animate 3", "train --epochs 150 --dataset strokes:50"])
def test_cuda_is_refused_where_there_is_none(
    tiny_here: Cli, tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    models = tree(tiny_home)
    error, hint = complaint(tiny_here(*typed.split(), "--device", "cuda"), 1)
    assert re.fullmatch(r"CUDA is not available: torch \S+ (finds no NVIDIA GPU|is a CPU-only build)", error)
    assert hint == "--device cpu"
    assert list(tmp_path.iterdir()) == []
    assert tree(tiny_home) == models


@pytest.mark.parametrize(
    ("typed", "name"), [("generate 8", "x.png"), ("generate 8", "x.npz"), ("grid", "x.png"), ("animate 3", "x.gif")]
)
def test_a_target_directory_that_is_missing(tiny_here: Cli, tmp_path: Path, typed: str, name: str) -> None:
    assert complaint(tiny_here(*typed.split(), "-o", f"no/where/{name}"), 1) == (
        "the folder no/where does not exist",
        "mkdir -p 'no/where'",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", ["grid", "animate 3"])
def test_a_directory_in_the_place_of_the_file(tiny_here: Cli, tmp_path: Path, typed: str) -> None:
    folder = tmp_path / "x.png"
    folder.mkdir()
    assert complaint(tiny_here(*typed.split(), "-o", "x.png"), 1) == (
        "x.png is a folder",
        "pass a file as --output",
    )
    assert list(folder.iterdir()) == []


CAP_DAC_OVERRIDE = 1
PR_CAPBSET_DROP = 24


@pytest.fixture
def unprivileged(tiny_home: Path) -> Callable[..., Result]:
    """The command line as somebody for whom permissions count: root reads and writes what it likes."""

    def give_up_privilege() -> None:
        if os.geteuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
            os._exit(99)

    def run(folder: Path, *arguments: object) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "ddpmctl", *map(str, arguments)],
            cwd=folder,
            env=clean_environment(tiny_home),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=give_up_privilege,
        )
        if done.returncode == 99:
            pytest.skip("root could not give up its privilege here, and for root nothing is read-only")
        return done

    return run


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder that takes no files."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    return folder


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
@pytest.mark.parametrize(
    ("typed", "name"), [("generate 8", "eight.png"), ("grid", "test_results.png"), ("animate 3", "three.gif")]
)
def test_a_target_directory_that_is_read_only(
    unprivileged: Callable[..., Result], read_only: Path, typed: str, name: str
) -> None:
    refusal = (f"permission denied: {name}", "choose a different --output")
    assert complaint(unprivileged(read_only, *typed.split()), 1) == refusal
    path = read_only / name
    assert complaint(unprivileged(read_only.parent, *typed.split(), "-o", path), 1) == (
        f"permission denied: {path}",
        "choose a different --output",
    )
    assert list(read_only.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_demo_in_a_read_only_folder(unprivileged: Callable[..., Result], read_only: Path) -> None:
    assert complaint(unprivileged(read_only, "demo"), 1) == (
        "cannot create the folder ddpmctl-demo: Permission denied",
        "change to a writable folder",
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc")
def test_a_place_where_not_even_root_can_write(tiny: Cli) -> None:
    done = tiny("generate", "8", "--steps", 1, "-o", "/proc/x.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert re.search(r"^error: .*/proc", done.stderr, re.MULTILINE)


def test_a_home_where_nothing_can_be_kept(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "home"
    error, hint = complaint(cli("train", "--dataset", "strokes:50", DDPMCTL_HOME=str(home)), 1)
    assert error == f"cannot write to {home / 'models'}: Not a directory"
    assert hint == "set DDPMCTL_HOME to a writable folder"


WAY_ON = "pass the folder that contains MNIST/raw as --data-dir DIR, or use --dataset strokes, which needs no files"
FIRST = "train-images-idx3-ubyte"


def given(folder: Path, **files: bytes) -> Path:
    """A data dir with these files in place of the real ones."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, data in files.items():
        (raw / name.replace("_", "-")).write_bytes(data)
    return folder


def test_a_data_dir_that_is_missing(here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = ("the folder nowhere does not exist", WAY_ON)
    assert complaint(here("train", "--data-dir", "nowhere"), 1) == refusal
    monkeypatch.setenv("DDPMCTL_DATA_DIR", "nowhere")
    assert complaint(here("train"), 1) == refusal
    assert not (tmp_path / "nowhere").exists()


def test_a_data_dir_that_is_incomplete(here: Cli, tmp_path: Path) -> None:
    given(tmp_path / "data")
    before = tree(tmp_path)
    assert complaint(here("train", "--data-dir", "data", "--name", "new"), 1) == (
        f"the folder data is incomplete: MNIST/raw/{FIRST} is missing",
        WAY_ON,
    )
    assert {name: digest for name, digest in tree(tmp_path).items() if name != "models"} == before


@pytest.mark.parametrize("content", [b"", b"\0\0\10\3 and then something else"], ids=["short", "wrong"])
def test_a_data_dir_with_a_wrong_or_short_file(here: Cli, tmp_path: Path, content: bytes) -> None:
    given(tmp_path / "data", train_images_idx3_ubyte=content)
    assert complaint(here("train", "--data-dir", "data"), 1) == (
        f"data/MNIST/raw/{FIRST} does not match the checksum of the MNIST file of that name: wrong or truncated",
        WAY_ON,
    )


def test_a_data_dir_that_cannot_be_read(here: Cli, tmp_path: Path) -> None:
    (given(tmp_path / "data") / "MNIST" / "raw" / FIRST).mkdir()
    assert complaint(here("train", "--data-dir", "data"), 1) == (
        f"data/MNIST/raw/{FIRST} cannot be read: Is a directory",
        WAY_ON,
    )


def test_mnist_is_not_to_be_had_offline(cli: Cli) -> None:
    error = "MNIST is not in the cache, and DDPMCTL_OFFLINE=1 forbids the download"
    assert complaint(cli("train"), 1) == (error, WAY_ON)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("typed", ["generate 8", "grid", "animate 3", "inspect"])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, r"it has \d+ bytes and should have \d+"),
        (flip_a_bit, "its sha256 is not the one in the manifest"),
        (remove, "No such file or directory"),
    ],
)
def test_weights_that_are_not_those_of_the_manifest(
    here: Cli, tiny_home: Path, tmp_path: Path, typed: str, damage: Callable[[Path], None], why: str
) -> None:
    weights = copy_model(tiny_home, tmp_path, "hurt") / "weights.safetensors"
    damage(weights)
    before = tree(tmp_path)
    model = ["hurt"] if typed == "inspect" else ["--model", "hurt"]
    error, hint = complaint(here(*typed.split(), *model), 1)
    assert re.fullmatch(rf"damaged checkpoint: {re.escape(str(weights))}: {why}", error)
    assert hint == "choose another model (ddpmctl models) or train it again (ddpmctl train)"
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text[:400], ".+"),
        (lambda text: "", ".+"),
        (lambda text: "[]", "it is not a JSON object"),
        (lambda text: text.replace(f'"schema": {SCHEMA}', '"schema": 99'), ".*schema 99.*upgrade ddpmctl"),
        (lambda text: text.replace('"created"', '"erected"'), ".*missing required field `created`.*"),
        (
            lambda text: text.replace('"timesteps": 1000', '"timesteps": "many"'),
            r"Expected `int`, got `str` - at `\$\.config\.diffusion\.timesteps`",
        ),
    ],
    ids=["cut", "empty", "list", "newer", "other field", "other type"],
)
def test_a_damaged_manifest(here: Cli, tiny_home: Path, tmp_path: Path, damage: Callable[[str], str], why: str) -> None:
    manifest = copy_model(tiny_home, tmp_path, "hurt") / "manifest.json"
    manifest.write_text(damage(manifest.read_text()))
    for typed in (["generate", "8", "--model", "hurt"], ["inspect", "hurt"]):
        error, _ = complaint(here(*typed), 1)
        assert re.fullmatch(rf"damaged checkpoint: {re.escape(str(manifest))}: {why}", error)


def test_weights_of_another_network_than_the_manifest_says(here: Cli, tiny_home: Path, tmp_path: Path) -> None:
    commit = copy_model(tiny_home, tmp_path, "hurt")
    values = json.loads((commit / "manifest.json").read_text())
    values["config"]["model"]["widths"][0] *= 2
    rewrite_manifest(commit, values)
    error, _ = complaint(here("generate", "8", "-m", "hurt"), 1)
    assert error == f"damaged checkpoint: the weights in {commit} do not match the manifest"


@pytest.mark.parametrize("command", [["generate", "8", "--model"], ["inspect"]])
def test_a_file_that_is_no_checkpoint(here: Cli, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "weights.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "folder").mkdir()
    for name in ("notes.txt", "weights.safetensors", "folder"):
        assert complaint(here(*command, name), 1) == (
            f"{name} is not a checkpoint",
            "list models: ddpmctl models",
        )


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_while_sampling_leaves_nothing(tiny_home: Path, tmp_path: Path, sent: int, code: int) -> None:
    copy_model(tiny_home, tmp_path, "tiny")
    before = tree(tmp_path)
    with Running(tmp_path, "generate", "8", "-n", 2000, "-o", "many.npz") as running:
        running.wait_for("seed ")
        running.send(sent)
        done = running.finish()
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    assert tree(tmp_path) == before


def test_the_traceback_is_there_for_those_who_ask(tiny: Cli) -> None:
    done = tiny("generate", "12", DDPMCTL_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith(f"error: unknown label '12'\n\nhint: {LABELS}\n")


def test_what_nobody_foresaw_is_said_without_a_traceback(tiny_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpmctl.registry import Registry

    def fail(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(Registry, "open", fail)
    assert complaint(tiny_here("inspect"), 1) == (
        "unexpected error: ZeroDivisionError: of all things",
        "DDPMCTL_DEBUG=1 shows the traceback; please report it",
    )


def test_too_little_memory_is_said_in_words(tiny_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpmctl.sampling.engine import Engine

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Engine, "run", fail)
    assert complaint(tiny_here("generate", "8"), 1) == (
        "there is not enough memory",
        "request fewer or smaller images",
    )
