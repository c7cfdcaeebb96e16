"""The old name of `natadv.storage.atomic`, for modules that are being moved."""

from natadv.storage.atomic import write_whole as write_whole
