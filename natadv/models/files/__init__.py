"""What lies on disk, found out without torch."""
