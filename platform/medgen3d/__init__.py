"""MedGen3D platform: from labelled 3D volumes to synthetic image and mask pairs."""

__version__ = "0.1.0"
