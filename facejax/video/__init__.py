"""Clips: frames, the faces in them, features, descriptors and the classifiers on top (paper section 3.3)."""
