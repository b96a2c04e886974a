"""Trained networks as files for other runtimes: ONNX, LiteRT, StableHLO, and bundles with the detector."""

# By name, for `facejax.export.formats.export_models`; here so that the command can list them without loading JAX.
FORMATS = ("onnx", "litert", "litert_float16", "litert_int8", "stablehlo", "orbax")
