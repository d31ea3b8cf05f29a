"""Optimizers under PyTorch's names; a Trainer attaches them to a model's parameters."""

from fastnn.optim.optimizers import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
