"""MedGen3D platform: from labelled 3D volumes to synthetic image and mask pairs."""

import os

# MONAI imports MLflow, and MLflow reports its use from its first import on. Every process of ours passes here before.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

__version__ = "0.1.0"
