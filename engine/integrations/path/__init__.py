"""A folder for PYTHONPATH, in which `onnxruntime` is infold (`infold exec`)."""
