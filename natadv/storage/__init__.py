"""The only code that writes whole files, locks, file hashes, seals and progress lines."""
