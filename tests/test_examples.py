"""The examples do what they say."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> dict[str, Any]:
    """The names that an example defines."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.mark.skipif(find_spec("aeon") is None, reason="the data comes with aeon")
def test_japanese_vowels_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    names = example("japanese_vowels")
    train, test = names["load"]("TRAIN"), names["load"]("TEST")
    assert (train.x.shape[::2], test.x.shape[::2]) == ((270, 12), (370, 12))
    assert len(train.classes) == 9
    lengths = [*train.lengths, *test.lengths]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert names["main"]() >= 0.97
    assert "test accuracy" in capsys.readouterr().out


def test_characters_become_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("characters")["main"](epochs=4) > 0.5
    assert "lines are numbers" in capsys.readouterr().out


def test_logic_gates_need_a_hidden_layer_for_xor_alone() -> None:
    right = example("logic_gates")["main"]()
    assert [case for case, learned in right.items() if not learned] == [
        ("XOR", "perceptron"),
        ("XOR", "neuron"),
    ]


def test_learning_rates_follow_the_theory(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = example("learning_rates")
    losses = names["main"](tmp_path / "rates.png")
    for name, rate in names["RATES"].items():
        wanted = [9 * (1 - 2 * rate) ** (2 * k) for k in range(20)]
        assert losses[name] == pytest.approx(wanted, rel=1e-9)
    assert (tmp_path / "rates.png").stat().st_size > 0


def test_custom_op_has_the_right_gradient_and_learns() -> None:
    error, accuracy = example("custom_op")["main"](compile=False)
    assert error < 1e-8  # of the differences: step**2 and eps / step
    assert accuracy > 0.9


def test_digits_are_read_by_both_networks(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    accuracy = example("digits")["main"](tmp_path, epochs=4)
    assert set(accuracy) == {"mlp", "cnn"} and min(accuracy.values()) > 0.8
    assert len(list(tmp_path.glob("*.png"))) == 4


def test_every_cure_of_overfitting_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    results = example("overfitting")["main"](tmp_path / "cures.png", epochs=40)
    plain = results.pop("none")
    assert plain["training loss"] < 0.05 < 0.5 < plain["loss"]  # learned by heart
    for cured in results.values():
        assert cured["training loss"] > plain["training loss"] and cured["loss"] < plain["loss"]
    assert "early stopping" in capsys.readouterr().out
    assert (tmp_path / "cures.png").stat().st_size > 0
