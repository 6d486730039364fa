"""The error that every reader of coded bytes raises."""


class BitstreamError(ValueError):
    """The bytes are damaged, cut short, or of a kind that this release can't read.

    Messages name the fact, the value found and, where there is one, the remedy. Wrong arguments
    are plain `ValueError`, wrong state is `RuntimeError`: only coded bytes lead here.
    """
