"""Models served over the Open Inference Protocol (v2, REST and gRPC) on the KServe Python SDK."""
