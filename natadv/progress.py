"""The old name of `natadv.storage.progress`, for modules that are being moved."""

from natadv.storage.progress import Progress as Progress
