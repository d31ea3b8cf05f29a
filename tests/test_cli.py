"""The command line, in the same process where that is enough, as a command where it is not."""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from safetensors.numpy import load_file

import fastnn as fn
from fastnn import models, nn, optim
from fastnn.cli import main

COMMAND = [sys.executable, "-m", "fastnn.cli"]
LAST_LINE = re.compile(r"test accuracy (\d+\.\d\d) %, trained in \d+\.\d\d s, [\d,]+ images/s$")


@pytest.fixture(autouse=True)
def same_threads():
    before = fn.get_num_threads()
    yield
    fn.set_num_threads(before)


@pytest.fixture
def run(capsys):
    """run(*arguments) -> (exit code, standard output, standard error)."""

    def call(*arguments):
        code = main(list(map(str, arguments)))
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def npz(tmp_path):
    """npz(**arrays) -> the path of a file with them; by default two classes told by their mean."""

    def write(**arrays):
        if not arrays:
            rng = np.random.default_rng(0)
            y = np.arange(60) % 2
            x = (rng.integers(0, 100, (60, 8, 8)) + 100 * y[:, None, None]).astype(np.uint8)
            arrays = {"x": x, "y": y}
        np.savez(tmp_path / "own.npz", **arrays)
        return str(tmp_path / "own.npz")

    return write


def accuracy(out):
    """The test accuracy in percent, from the last line."""
    found = LAST_LINE.match(out.splitlines()[-1])
    assert found, out
    return float(found[1])


# --- info, version, help ---


def test_info(run):
    code, out, err = run("info")
    assert (code, err) == (0, "")
    values = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert list(values) == ["fastnn", "isa", "threads", "compiler", "python", "numpy"]
    assert values["fastnn"] == fn.__version__
    assert values["isa"].split()[0] == fn.isa()
    assert values["threads"] == str(fn.get_num_threads())
    assert re.search(r"\d+\.\d+", values["compiler"])
    assert values["python"] == "{}.{}.{}".format(*sys.version_info)
    assert values["numpy"] == np.__version__


def test_version_as_a_command():
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastnn {fn.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["info", "--help"]])
def test_help(run, arguments):
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("usage: fastnn")


# --- train ---


def test_digits_reach_98_percent(run):
    code, out, _ = run("train")
    assert code == 0
    assert accuracy(out) >= 98


@pytest.mark.parametrize("model", models.MODELS)
def test_models_on_an_npz_file(run, npz, model):
    code, out, _ = run("train", "--data", npz(), "--model", model, "--epochs", 10)
    assert code == 0
    assert accuracy(out) == 100


def test_progress_goes_to_standard_error(run, npz):
    code, out, err = run("train", "--data", npz(), "--epochs", 2)
    assert code == 0
    assert len(out.splitlines()) == 1
    assert [line.split()[:2] for line in err.splitlines()] == [["epoch", "1/2"], ["epoch", "2/2"]]


def test_sgd_on_features(run, npz):
    rng = np.random.default_rng(1)
    y = np.arange(300) % 3
    x = rng.standard_normal((300, 5)) + 4 * np.eye(3, 5)[y]
    arguments = ["--model", "mlp", "--optimizer", "sgd", "--lr", "0.05", "--batch-size", "16"]
    code, out, _ = run("train", "--data", npz(x=x, y=y), *arguments, "--epochs", 8)
    assert code == 0
    assert accuracy(out) >= 95


def test_seed_and_threads(run, tmp_path):
    """The same seed gives the same bits with one thread and with two; another seed does not."""
    results = []
    for seed, threads in ((3, 1), (3, 2), (4, 1)):
        path = tmp_path / f"{seed}-{threads}"
        options = ["--seed", seed, "--threads", threads, "--epochs", 2, "--save", path]
        assert run("train", "--model", "lenet", *options)[0] == 0
        assert fn.get_num_threads() == threads
        results.append({k: v.tobytes() for k, v in load_file(path).items()})
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_save_and_resume(run, tmp_path):
    path = tmp_path / "digits.safetensors"
    code, out, _ = run("train", "--model", "mlp", "--epochs", 2, "--save", path)
    assert code == 0
    data = fn.data.digits()
    model = models.mlp(data)
    loss = nn.CrossEntropyLoss()
    trainer = fn.Trainer.resume(path, model, loss, optim.Adam(), metrics=("accuracy",))
    assert (trainer.epochs, trainer.steps) == (2, 2 * -(-1437 // 128))
    assert f"{100 * trainer.evaluate(*data.test)['accuracy']:.2f}" == f"{accuracy(out):.2f}"


@pytest.mark.parametrize("ending", ["png", "PDF", "svg"])
def test_plot(run, tmp_path, ending):
    path = tmp_path / f"curves.{ending}"
    assert run("train", "--model", "mlp", "--epochs", 2, "--plot", path)[0] == 0
    if ending == "png":
        from matplotlib.image import imread

        height, width, channels = imread(path).shape
        assert height > 200 and width > 200 and channels == 4
    else:
        assert path.stat().st_size > 1000


def test_plot_needs_no_display(tmp_path):
    path = tmp_path / "curves.png"
    arguments = ["train", "--model", "mlp", "--epochs", "1", "--plot", str(path)]
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")


# --- what is refused: one line on standard error, exit code 2 ---


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "COMMAND"),
        (["fit"], "invalid choice: 'fit'"),
        (["info", "more"], "more"),
        (["train", "--epoch-size", "3"], "--epoch-size"),
        (["train", "--epochs"], "--epochs: expected one argument"),
        (["train", "--epochs", "0"], "--epochs: expected an integer of 1 to"),
        (["train", "--epochs", "2.5"], "--epochs: expected an integer"),
        (["train", "--batch-size", "-1"], "--batch-size: expected an integer"),
        (["train", "--threads", "0"], "--threads: expected an integer"),
        (["train", "--threads", "two"], "got 'two'"),
        (["train", "--seed", "-1"], "--seed: expected an integer of 0 to"),
        (["train", "--seed", str(2**53)], "--seed: expected an integer"),
        (["train", "--lr", "fast"], "--lr: expected a number"),
        (["train", "--lr", "nan"], "--lr: expected a number"),
        (["train", "--lr", "-1"], "--lr: expected a number"),
        (["train", "--optimizer", "lion"], "--optimizer: invalid choice: 'lion'"),
        (["train", "--model", "resnet"], "--model: invalid choice: 'resnet'"),
        (["train", "--data", "cifar"], "--data: expected digits, fashion-mnist, mnist or"),
        (["train", "--data", "absent.npz"], "absent.npz"),
        (["train", "--save", "no/such/folder/file"], "--save: expected a file in a folder"),
        (["train", "--save", "."], "--save: expected a file in a folder"),
        (["train", "--save", ""], "--save: expected a file in a folder"),
        (["train", "--plot", "curves.gif"], "--plot: expected a file name in .png"),
        (["train", "--plot", "no/such/folder/a.png"], "--plot: expected a file in a folder"),
    ],
)
def test_wrong_arguments(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), message)


def assert_refused(result, message):
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("fastnn: error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    "arrays, options, message",
    [
        ({"a": np.zeros(3)}, [], "expected arrays x and y"),
        ({"x": np.zeros((9, 1, 8, 8)), "y": np.zeros(8, int)}, [], "the same length"),
        ({"x": np.zeros((9, 1, 8, 8)), "y": np.zeros(9)}, [], "y: expected integer labels"),
        ({"x": np.zeros((9, 5)), "y": np.arange(9) % 2}, ["--model", "cnn"], "expected images"),
        ({"x": np.zeros((9, 1, 3, 3)), "y": np.arange(9) % 2}, ["--model", "lenet"], "4x4"),
        ({"x": np.full((9, 5), np.nan), "y": np.arange(9) % 2}, ["--model", "mlp"], "NaN"),
    ],
)
def test_bad_data(run, npz, arrays, options, message):
    assert_refused(run("train", "--data", npz(**arrays), *options), message)


def test_a_file_that_is_no_npz(run, tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("x,y\n")
    assert_refused(run("train", "--data", path), "text.npz: not a readable .npz file")


@pytest.mark.parametrize("option, module", [("--plot", "matplotlib"), ("--save", "safetensors")])
def test_missing_extras_are_found_before_training(run, tmp_path, monkeypatch, option, module):
    from fastnn import cli

    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    path = tmp_path / "file.png"
    assert_refused(run("train", option, path), f"{option} needs {module}: pip install")


def test_data_that_cannot_be_had(run, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTNN_DATA", str(tmp_path))
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setenv("FASTNN_DATA_URL", "http://127.0.0.1:9")
    code, out, err = run("train", "--data", "mnist")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("fastnn: error: http://127.0.0.1:9/mnist/")


# --- Ctrl-C ---


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.usefixtures("heard_sigint")
def test_interrupt(tmp_path):
    arguments = ["train", "--model", "mlp", "--epochs", "1000000", "--save", str(tmp_path / "file")]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr.readline().startswith("epoch ")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert re.match(r"interrupted after \d+ epochs, \d+ steps: test accuracy ", out)
    assert load_file(tmp_path / "file")


@pytest.mark.skipif(find_spec("fastnn_bench") is None, reason="not installed, only on the path")
def test_bench_lists_its_cases(run):
    code, out, _ = run("bench", "train", "--list", "--only", "lenet5")
    assert code == 0 and out.splitlines() == ["train: lenet5 b1", "train: lenet5 b128"]
