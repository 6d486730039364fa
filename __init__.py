"""latentpack: neural codecs for media and tensors."""

__version__ = "0.1.0"
