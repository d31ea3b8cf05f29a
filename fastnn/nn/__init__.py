"""Layers, containers and losses with PyTorch's names, defaults and state_dict keys."""

from fastnn.nn.container import Sequential
from fastnn.nn.conv import Conv2d
from fastnn.nn.embedding import Embedding
from fastnn.nn.layers import (
    Dropout,
    Flatten,
    Identity,
    Linear,
    Normalize,
    ReLU,
    Sigmoid,
    Tanh,
)
from fastnn.nn.loss import CrossEntropyLoss, MSELoss
from fastnn.nn.module import Buffer, Module, Parameter
from fastnn.nn.norm import BatchNorm1d, BatchNorm2d
from fastnn.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d, MinPool2d
from fastnn.nn.rnn import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "Identity",
    "LSTMCell",
    "Linear",
    "MSELoss",
    "MaxPool2d",
    "MinPool2d",
    "Module",
    "Normalize",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Tanh",
]
