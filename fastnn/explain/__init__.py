"""Seeing inside: what an output depends on, and how its error is propagated back."""

from fastnn.explain.attribution import grad_cam, integrated_gradients, occlusion, saliency
from fastnn.explain.worked import backprop

__all__ = ["backprop", "grad_cam", "integrated_gradients", "occlusion", "saliency"]
