"""Writes layers.json beside itself: outputs and gradients of torch.nn's layers in float64.

Each array is kept as its product with fixed numbers, which both sides make. Run with PyTorch installed;
the file in the repository was made with PyTorch 2.13.
"""

import json
from pathlib import Path

import torch

CASES = [
    ("Conv1d", {"in_channels": 4, "out_channels": 6, "kernel_size": 4, "padding": "same"}, (2, 4, 9)),
    ("ConvTranspose1d", {"in_channels": 3, "out_channels": 4, "kernel_size": 5, "stride": 2}, (2, 3, 7)),
    ("MaxPool1d", {"kernel_size": 3, "stride": 2, "padding": 1}, (2, 3, 9)),
    ("MaxPool1d", {"kernel_size": 2, "dilation": 3, "ceil_mode": True}, (2, 3, 10)),
    ("AvgPool1d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 10)),
    ("AvgPool1d", {"kernel_size": 3, "padding": 1, "count_include_pad": False}, (2, 3, 10)),
    ("LPPool1d", {"norm_type": 2, "kernel_size": 3, "stride": 2}, (2, 3, 9)),
    ("LPPool2d", {"norm_type": 4, "kernel_size": [3, 2]}, (2, 3, 9, 8)),
    ("LPPool2d", {"norm_type": 2, "kernel_size": 3, "stride": 2, "ceil_mode": True}, (2, 3, 10, 8)),
    ("AdaptiveAvgPool1d", {"output_size": 4}, (2, 3, 9)),
    ("AdaptiveMaxPool1d", {"output_size": 4}, (2, 3, 9)),
    ("AdaptiveMaxPool2d", {"output_size": [4, 3]}, (2, 3, 9, 7)),
    ("AdaptiveMaxPool2d", {"output_size": 1}, (2, 3, 5, 4)),
    ("LayerNorm", {"normalized_shape": [3, 7]}, (2, 4, 3, 7)),
    ("LayerNorm", {"normalized_shape": 33, "bias": False, "eps": 0.1}, (2, 4, 33)),
    ("RMSNorm", {"normalized_shape": 33}, (2, 4, 33)),
    ("RMSNorm", {"normalized_shape": [4, 5], "eps": 0.1, "elementwise_affine": False}, (2, 4, 5)),
    ("GroupNorm", {"num_groups": 3, "num_channels": 6}, (2, 6, 5, 4)),
    ("GroupNorm", {"num_groups": 2, "num_channels": 6, "affine": False}, (2, 6, 5)),
    ("BatchNorm1d", {"num_features": 4}, (3, 4, 7)),
    ("Unflatten", {"dim": 1, "unflattened_size": [2, -1]}, (2, 6, 4)),
    ("Upsample", {"scale_factor": 2}, (2, 3, 4, 5)),
    ("Upsample", {"scale_factor": 2}, (2, 3, 5)),
    ("Upsample", {"size": [7, 3]}, (2, 3, 4, 5)),
    ("Upsample", {"scale_factor": [2.5, 1.3], "mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", {"size": [7, 3], "mode": "bilinear", "align_corners": True}, (2, 3, 4, 5)),
    ("Upsample", {"size": [2, 9], "mode": "bilinear"}, (2, 3, 4, 5)),
    ("Upsample", {"size": 1, "mode": "linear", "align_corners": True}, (2, 3, 4)),
    ("Upsample", {"scale_factor": 3, "mode": "linear"}, (2, 3, 4)),
    ("ZeroPad1d", {"padding": 2}, (2, 3, 4)),
    ("ZeroPad2d", {"padding": [1, -1, 2, 0]}, (2, 3, 4, 5)),
    ("ConstantPad2d", {"padding": 2, "value": 1.5}, (2, 3, 4, 5)),
    ("ReflectionPad2d", {"padding": [1, 3, 2, 0]}, (2, 3, 4, 5)),
    ("ReplicationPad2d", {"padding": [1, 3, 7, 0]}, (2, 3, 4, 5)),
    ("CircularPad2d", {"padding": [1, 5, 4, 0]}, (2, 3, 4, 5)),
]  # fmt: skip


def numbers(shape: tuple, key: int) -> torch.Tensor:
    """Exact in binary; the test computes the same."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return ((((2 * key + 37) * i + 11 * key) % 101 - 50) / 16).reshape(shape)


def run(name: str, options: dict, shape: tuple) -> dict:
    made = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    layer = getattr(torch.nn, name)(**made).double()
    for i, p in enumerate(layer.parameters()):
        p.data = numbers(p.shape, i + 2)
    x = numbers(shape, 0).requires_grad_()
    y = layer(x)
    dot = (y * numbers(y.shape, 1)).sum()
    dot.backward()
    grads = {n: (p.grad * numbers(p.shape, 1)).sum().item() for n, p in layer.named_parameters()}
    grads["x"] = (x.grad * numbers(x.shape, 1)).sum().item()
    return {
        "layer": name, "options": options, "shape": shape, "output": list(y.shape),
        "dot": dot.item(), "grads": grads,
    }  # fmt: skip


def main() -> None:
    lines = ",\n".join(json.dumps(run(*case)) for case in CASES)
    Path(__file__).with_name("layers.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
