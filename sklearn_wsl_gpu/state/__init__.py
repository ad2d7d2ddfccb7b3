"""Estimators and arguments as values and arrays, and back, without pickle."""

from sklearn_wsl_gpu.state.decoding import Decoder
from sklearn_wsl_gpu.state.encoding import Encoder

__all__ = ["Decoder", "Encoder"]
