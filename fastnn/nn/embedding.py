"""A table of vectors, looked up by integer."""

from __future__ import annotations

from typing import Any

from fastnn import ops
from fastnn.nn.init import normal
from fastnn.nn.layers import positive
from fastnn.nn.module import Module, Parameter, value


class Embedding(Module):
    """weight[indices]: integers (...) become vectors (..., embedding_dim). As torch.nn.Embedding.

    weight (num_embeddings, embedding_dim) starts normal, its row padding_idx (None: no such row) at
    zero, and that row is never trained. sparse: a training step costs what its tokens do, however large
    the table is; SGD, Adam (then torch.optim.SparseAdam's rule) and Adagrad can do it, without weight
    decay, clipping, averaged weights and accumulation. Raises IndexError for an index outside
    0..num_embeddings-1.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        sparse: bool = False,
    ) -> None:
        positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"Embedding: padding_idx: expected one of {num_embeddings} rows, got {padding_idx}"
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        start = normal((num_embeddings, embedding_dim))
        if self.padding_idx is not None:
            start[self.padding_idx] = 0
        self.sparse = bool(sparse)
        self.weight = Parameter(start, sparse=self.sparse)

    def forward(self, indices: Any) -> Any:
        return ops.embedding(indices, value(self.weight), self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        sparse = ", sparse=True" if self.sparse else ""
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{sparse}"
