"""The table of where a training step's time goes."""

import numpy as np

from bench import steps


def test_every_step_is_timed_and_those_that_count_are_listed(capsys):
    steps.main("mlp-4-32-3", "32", "0.05", "1")
    lines = capsys.readouterr().out.splitlines()
    kernels = [line.split()[0] for line in lines]
    assert {"gemm", "xent_fwd", "sgd"} <= set(kernels)
    shares = [float(part[:-1]) for line in lines for part in line.split() if part.endswith("%")][
        :-1
    ]
    assert 90 < sum(shares) < 101 and np.all(np.array(shares) >= 100 * steps.LEAST)
