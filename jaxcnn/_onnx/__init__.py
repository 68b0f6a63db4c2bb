"""Translates programs of jax into ONNX models."""

from jaxcnn._onnx._model import onnx_model as onnx_model
