"""fn.custom_op: a user's functions inside plans, compiled and as Python."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, ops, optim
from fastnn.ops.foreign import has_numba

needs_numba = pytest.mark.skipif(not has_numba(), reason="Numba is not installed")


def swish(x, beta, y, scale=1.0):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = scale * x[i, j] / (1.0 + np.exp(-beta[0] * x[i, j]))


def swish_grad(x, beta, y, dy, dx, dbeta, scale):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            s = 1.0 / (1.0 + np.exp(-beta[0] * x[i, j]))
            dx[i, j] = scale * dy[i, j] * (s + beta[0] * x[i, j] * s * (1.0 - s))
            dbeta[0] += scale * dy[i, j] * x[i, j] * x[i, j] * s * (1.0 - s)


class Swish(nn.Module):
    def __init__(self, op):
        self.beta = nn.Parameter(np.array([1.5]))
        object.__setattr__(self, "op", op)

    def forward(self, x):
        return self.op(x, self.beta, scale=2.0)


def composed(x, beta, scale=1.0):
    return scale * x * ops.sigmoid(beta * x)


def check_against_the_composed_op(op):
    """Outputs, gradients and a trained step of the custom op are those of the same formula in ops."""
    rng = np.random.default_rng(0)
    x, t, beta = rng.standard_normal((7, 3)), rng.standard_normal((7, 3)), np.array([1.5])
    np.testing.assert_allclose(op(x, beta, scale=0.5), composed(x, beta, 0.5), rtol=1e-12)
    fn.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), Swish(op)).double()
    other = nn.Sequential(nn.Linear(3, 3), Swish(composed)).double()
    other.load_state_dict(model.state_dict())
    (loss, grads), (want, wanted) = (
        fn.value_and_grad(m, nn.MSELoss())(x, t) for m in (model, other)
    )
    assert loss == pytest.approx(want, rel=1e-12)
    for name in wanted:
        np.testing.assert_allclose(grads[name], wanted[name], rtol=1e-10, atol=1e-14)
    losses = [
        fn.Trainer(m, nn.MSELoss(), optim.SGD(lr=0.1)).fit(x, t, 3, 4, progress=False)["loss"]
        for m in (model, other)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-10)


def test_python_functions_in_plans():
    check_against_the_composed_op(fn.custom_op(swish, swish_grad, compile=False))


@needs_numba
def test_compiled_functions_in_plans():
    check_against_the_composed_op(fn.custom_op(swish, swish_grad, compile=True))


def outside(x, y):
    y[x.shape[0] + 5] = 1.0


def over(x, y):
    x[0] = 1.0


@needs_numba
def test_compiled_functions_stay_inside_their_arrays():
    with pytest.raises(RuntimeError, match="outside: the compiled function raised"):
        fn.custom_op(outside, compile=True)(np.ones(3))
    with pytest.raises(TypeError, match="over: Numba cannot compile over"):
        fn.custom_op(over, compile=True)(np.ones(3))


def test_python_functions_stay_inside_their_arrays():
    with pytest.raises(RuntimeError, match="outside: IndexError"):
        fn.custom_op(outside, compile=False)(np.ones(3))
    with pytest.raises(RuntimeError, match=r"over: ValueError.*read-only"):
        fn.custom_op(over, compile=False)(np.ones(3))


def test_a_failing_function_leaves_the_model_as_it_was():
    def picky(x, y):
        if x[0, 0] > 100:
            raise ValueError("too large")
        y[...] = x

    def back(x, y, dy, dx):
        dx[...] = dy

    op = fn.custom_op(picky, back, compile=False)

    class Net(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 2)

        def forward(self, x):
            return self.linear(op(x))

    model = Net()
    trainer = fn.Trainer(model, nn.MSELoss(), optim.SGD(lr=0.1))
    x = np.ones((4, 2), np.float32)
    trainer.step(x, x)
    before = model.state_dict()
    with pytest.raises(RuntimeError, match="picky: ValueError: too large") as caught:
        trainer.step(1000 * x, x)
    assert isinstance(caught.value.__cause__, ValueError)
    assert all(np.array_equal(before[k], v) for k, v in model.state_dict().items())
    trainer.step(x, x)


def test_several_outputs_shapes_and_integer_inputs():
    def pick(x, index, y, total):
        for i in range(len(index)):
            y[i] = x[i, index[i]]
            total[()] += y[i]

    def back(x, index, y, total, dy, dtotal, dx):
        for i in range(len(index)):
            dx[i, index[i]] = dy[i] + dtotal[()]

    op = fn.custom_op(
        pick, back, shape=lambda x, i: [i, ()], integer_inputs=[1], compile=False, name="pick"
    )
    x, index = np.arange(6.0).reshape(3, 2), np.array([1, 0, 1])
    y, total = op(x, index)
    np.testing.assert_array_equal(y, [1.0, 2.0, 5.0])
    assert total == 8.0

    model = nn.Linear(2, 2).double()
    _, grads = fn.value_and_grad(model, lambda out, labels: op(out, labels)[1])(x, index)
    np.testing.assert_allclose(grads["bias"], [1.0, 2.0])
    with pytest.raises(TypeError, match="pick: input 1: expected integers, got float64"):
        op(x, x)


def test_a_function_that_runs_its_own_plan_is_refused_not_hung():
    def inner(x, y):
        y[...] = ops.relu(x)

    with pytest.raises(RuntimeError, match="custom op's function cannot run"):
        fn.custom_op(inner, compile=False)(np.ones(3))
    np.testing.assert_array_equal(ops.relu(np.array([-1.0, 2.0])), [0.0, 2.0])


def test_python_functions_from_several_threads_raise_their_own_errors():
    def mine(x, y):
        raise ValueError(str(x[0]))

    op, seen = fn.custom_op(mine, compile=False), {}

    def work(i):
        for _ in range(20):
            try:
                op(np.full(3, float(i)))
            except RuntimeError as error:
                seen.setdefault(i, set()).add(str(error))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert seen == {i: {f"mine: ValueError: {float(i)}"} for i in range(4)}


def same(x, y, slope=1.0):
    y[...] = x


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fn.custom_op(3), TypeError, "forward: expected a function, got int"),
        (lambda: fn.custom_op(same, compile=False)(), TypeError, "same: expected at least one"),
        (
            lambda: fn.custom_op(same, compile=False)(np.ones(2), np.ones(2)),
            TypeError,
            "same: forward: expected 2 inputs, 1 outputs and 1 numbers",
        ),
        (
            lambda: fn.custom_op(same, compile=False)(np.ones(2), slop=1),
            TypeError,
            "no argument is called 'slop'",
        ),
        (
            lambda: fn.custom_op(same, compile=False)(np.ones(2), slope="1"),
            TypeError,
            "slope: expected a number, got '1'",
        ),
        (
            lambda: fn.custom_op(same, compile=False)(np.array([1, 2])),
            TypeError,
            "same: input 0: expected float32 or float64, got int64",
        ),
        (
            lambda: fn.value_and_grad(
                nn.Linear(2, 2), lambda y, t: ops.sum(fn.custom_op(same, compile=False)(y))
            )(np.ones((3, 2)), np.ones(3)),
            NotImplementedError,
            "same has no gradient",
        ),
    ],
)
def test_wrong_uses_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
