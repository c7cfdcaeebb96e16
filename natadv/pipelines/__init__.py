"""Where data, scenarios and models meet to make datasets."""
