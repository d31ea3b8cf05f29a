"""The command `fastnn`: train a network on a data set, time fastnn, or tell what runs here.

Exit codes: 0; 2 for arguments and files that are wrong (one line on standard error says how); 130
after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from fastnn.data import Dataset
    from fastnn.train import History, Trainer

N = TypeVar("N", int, float)

DATA = ("digits", "fashion-mnist", "mnist")
MODELS = ("mlp", "lenet", "cnn")
LEARNING_RATES = {"adam": 2e-3, "sgd": 0.02}
PLOTS = (".png", ".pdf", ".svg")


class UsageError(Exception):
    """What the user typed cannot be done; the message says why in one line."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fastnn` with these arguments (sys.argv[1:] by default) and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["bench"]:  # whose options are its own
            return _bench(argv[1:])
        arguments = _parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int] = arguments.run
        return run(arguments)
    except SystemExit as end:  # after --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt:
        print("fastnn: interrupted", file=sys.stderr)
        return 130
    except (UsageError, OSError, ValueError, ImportError, MemoryError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"fastnn: error: {message}", file=sys.stderr)
        return 2


def _parser() -> Parser:
    from fastnn import __version__

    parser = Parser(prog="fastnn", description="Neural networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"fastnn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    info = commands.add_parser("info", help="print instruction set, threads, compiler, versions")
    info.set_defaults(run=_info)
    commands.add_parser("bench", help="time fastnn beside NumPy, Numba, PyTorch, JAX, ...")
    train = commands.add_parser(
        "train",
        help="train a network and print its test accuracy",
        description="Train a network on a data set and print its test accuracy.",
    )
    train.set_defaults(run=_train)
    add = train.add_argument
    sets = ", ".join(DATA)
    add("--data", type=_data, default="digits", help=f"{sets} or FILE.npz (default: digits)")
    add("--model", choices=MODELS, default="cnn", help="default: cnn")
    add("--epochs", type=_count, help="default: 40 for digits, 3 for others", metavar="N")
    add("--batch-size", type=_count, default=128, help="default: 128", metavar="N")
    add("--optimizer", choices=tuple(LEARNING_RATES), default="adam", help="default: adam")
    add(
        "--lr",
        type=_rate,
        help="at the start, falling linearly to 0; default: 2e-3 for adam, 0.02 for sgd",
        metavar="F",
    )
    add("--threads", type=_count, help="default: all that this process may use", metavar="N")
    add(
        "--seed",
        type=_seed,
        default=0,
        help="of weights, order and dropout (default: 0)",
        metavar="N",
    )
    add("--save", type=_target, help="write a checkpoint (safetensors) at the end", metavar="FILE")
    add("--plot", type=_plot, help="draw loss and accuracy over epochs", metavar="FILE.png")
    return parser


# --- arguments: argparse turns an ArgumentTypeError into "argument --NAME: message" ---


def _count(text: str) -> int:
    return _number(text, int, 1, 2**31 - 1)


def _seed(text: str) -> int:
    return _number(text, int, 0, 2**53 - 1)


def _rate(text: str) -> float:
    return _number(text, float, 0.0, 1e6)


def _number(text: str, kind: type[N], least: N, most: N) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        what = "an integer" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"expected {what} of {least} to {most}, got {text!r}")
    return number


def _data(text: str) -> str:
    if text not in DATA and not text.endswith(".npz"):
        known = ", ".join(DATA)
        raise argparse.ArgumentTypeError(f"expected {known} or a FILE.npz, got {text!r}")
    return text


def _target(text: str) -> str:
    if not text or os.path.isdir(text) or not os.path.isdir(os.path.dirname(text) or "."):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return text


def _plot(text: str) -> str:
    if not text.lower().endswith(PLOTS):
        raise argparse.ArgumentTypeError(
            f"expected a file name in {', '.join(PLOTS)}, got {text!r}"
        )
    return _target(text)


# --- info ---


def _info(arguments: argparse.Namespace) -> int:
    import platform

    import numpy as np

    import fastnn
    from fastnn import _core

    for name, value in (
        ("fastnn", fastnn.__version__),
        ("isa", f"{fastnn.isa()} (of {', '.join(_core.isas())})"),
        ("threads", fastnn.get_num_threads()),
        ("compiler", _core.compiler()),
        ("python", platform.python_version()),
        ("numpy", np.__version__),
    ):
        print(f"{name:<9}{value}")
    return 0


# --- bench ---


def _bench(argv: Sequence[str]) -> int:
    run: Callable[[Sequence[str]], int] = import_module("fastnn_bench.__main__").main
    return run(argv)


# --- train ---


def _train(arguments: argparse.Namespace) -> int:
    import fastnn as fn
    from fastnn import models

    # Found out now, not after the training.
    _need("--plot", arguments.plot, "matplotlib", "plot")
    _need("--save", arguments.save, "safetensors", "files")
    if arguments.threads:
        fn.set_num_threads(arguments.threads)
    fn.manual_seed(arguments.seed)
    data = _load(arguments.data)
    trainer = fn.Trainer(
        models.MODELS[arguments.model](data),
        loss=fn.nn.CrossEntropyLoss(),
        optimizer=_optimizer(arguments),
        metrics=("accuracy",),
        seed=arguments.seed,
    )
    (x, y), test = data
    epochs = arguments.epochs or (40 if arguments.data == "digits" else 3)
    batch = arguments.batch_size
    history = trainer.fit(
        x,
        y,
        epochs=epochs,
        batch_size=batch,
        validation_data=test,
        schedule=lambda done: 1 - done,
    )
    if arguments.save:
        trainer.save(arguments.save)
    if arguments.plot and len(history):
        history.plot(arguments.plot)
    return _report(trainer, history, data)


def _need(option: str, value: str | None, module: str, extra: str) -> None:
    if value and find_spec(module) is None:
        raise UsageError(f"{option} needs {module}: pip install 'fastnn-cpu[{extra}]'")


def _load(name: str) -> Dataset:
    from fastnn import data

    if name not in DATA:
        loaded = data.load_npz(name)
        if not loaded.classes:
            raise UsageError(f"{name}: y: expected integer labels, got {loaded.train[1].dtype}")
        return loaded
    load: Callable[[], Dataset] = getattr(data, name.replace("-", "_"))
    return load()


def _optimizer(arguments: argparse.Namespace) -> Any:
    from fastnn import optim

    name = arguments.optimizer
    lr = LEARNING_RATES[name] if arguments.lr is None else arguments.lr
    return optim.Adam(lr=lr) if name == "adam" else optim.SGD(lr=lr, momentum=0.9)


def _report(trainer: Trainer, history: History, data: Dataset) -> int:
    """Print the last line and return the exit code."""
    accuracy = 100 * trainer.evaluate(*data.test)["accuracy"]
    if history.interrupted:
        done = f"after {trainer.epochs} epochs, {trainer.steps} steps"
        print(f"interrupted {done}: test accuracy {accuracy:.2f} %")
        return 130
    seconds = sum(history.seconds)
    rate = len(data.train[0]) * len(history.seconds) / seconds
    trained = f"trained in {seconds:.2f} s, {rate:,.0f} images/s"
    print(f"test accuracy {accuracy:.2f} %, {trained}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
