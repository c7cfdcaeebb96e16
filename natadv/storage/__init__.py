"""The one writer each of whole files, locks, file hashes, sealed files and progress lines."""
