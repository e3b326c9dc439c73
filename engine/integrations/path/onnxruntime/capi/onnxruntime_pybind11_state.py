"""The errors of onnxruntime, by its names."""

from infold.integrations.onnxruntime import errors

globals().update(vars(errors))
