"""What depends on the parameters alone is computed once, and again whenever they may have changed."""

import numpy as np
import pytest

import fastnn as fn
from fastnn import nn, optim


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    ).eval()


def images(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3, 4, 4), dtype=np.float32)


def plan_of(model, x):
    """The plan of the last call with x."""
    model(x)
    return list(vars(model)["_plans"]._plans.values())[-1].plan


def fresh(model, x):
    """What a new model with the same state gives."""
    other = network()
    other.load_state_dict(model.state_dict())
    return other(x)


def test_packing_and_folding_go_into_the_prologue():
    plan = plan_of(network(), images(2))
    builder = plan.builder
    once = [s.kernel for s in builder.steps[: builder.prologue]]
    always = [s.kernel for s in builder.steps[builder.prologue :]]
    assert "conv_pack" in once and "unary" in once
    assert "conv_fwd" in always and "conv_pack" not in always
    assert "run again only if" in str(plan)


def test_weights_lie_as_products_of_more_than_a_few_rows_take_them():
    model = network()
    few, many = (
        [s.kernel for s in p.builder.steps[: p.builder.prologue]]
        for p in (plan_of(model, images(8)), plan_of(model, images(9)))
    )
    assert many.count("copy") == few.count("copy") + 1
    write_in_place(model)
    np.testing.assert_array_equal(model(images(9)), fresh(model, images(9)))
    model[4].weight.data[...] *= 2
    np.testing.assert_array_equal(model(images(9)), fresh(model, images(9)))


def test_prologue_is_left_out_while_nothing_was_written():
    model, x = network(), images(2)
    plan = plan_of(model, x)
    arrays = tuple(np.zeros(1 << 14, np.float32) for _ in plan.builder.array_labels)
    times = np.zeros(len(plan.builder.steps))
    plan.program.run(arrays, timings=times)
    assert (times[: plan.builder.prologue] == 0).all() and times.sum() > 0


def write_in_place(model):
    model[0].weight.data[...] *= 2


def load(model):
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})


def train_on(model):
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    trainer.step(images(4), np.arange(4) % 3)
    model.eval()


@pytest.mark.parametrize("change", [write_in_place, load, train_on])
def test_results_follow_the_parameters(change):
    model, x = network(), images(2)
    before = model(x)
    assert np.array_equal(model(x), before)
    change(model)
    assert not np.allclose(model(x), before)
    np.testing.assert_array_equal(model(x), fresh(model, x))


def test_results_follow_a_view_that_is_still_held():
    model, x = network(), images(2)
    weight = model[0].weight.data
    for scale in (0.5, 2.0, 3.0):
        weight *= scale
        np.testing.assert_array_equal(model(x), fresh(model, x))


def test_plans_of_several_shapes_share_one_block():
    model = network()
    first, second = images(2), images(5, seed=1)
    expected = [fresh(model, x) for x in (first, second)]
    for _ in range(3):
        np.testing.assert_array_equal(model(first), expected[0])
        np.testing.assert_array_equal(model(second), expected[1])


def test_predictions_follow_training():
    model, x = network(), images(4)
    trainer = fn.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    seen = []
    for _ in range(3):
        trainer.step(x, np.arange(4) % 3)
        seen.append(trainer.predict(x))
        np.testing.assert_allclose(seen[-1], fresh(model, x), rtol=1e-6, atol=1e-6)
    assert not np.allclose(seen[0], seen[-1])


def test_a_training_plan_has_no_prologue():
    trainer = fn.Trainer(network().train(), nn.CrossEntropyLoss(), optim.SGD(lr=0.1))
    trainer.step(images(4), np.arange(4) % 3)
    (plan,) = trainer._step_plans.values()
    assert plan.plan.builder.prologue == 0
