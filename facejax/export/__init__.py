"""Trained networks as files for other runtimes: ONNX, LiteRT, StableHLO, and bundles with the detector."""
