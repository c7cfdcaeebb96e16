"""Published formats to packed datasets, one file each."""
