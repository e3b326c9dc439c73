"""infold: import a trained CNN, fold its BatchNorms away, run the rest on the CPU, prove the result."""
