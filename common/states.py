"""The public states of a model version, numbered as tensorflow.serving.ModelVersionStatus.State numbers them."""

from enum import IntEnum


class VersionState(IntEnum):
    """Where a version stands in its life; a client sees exactly these."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50
