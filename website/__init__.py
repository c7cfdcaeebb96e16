"""The site of the documentation: its pages, the reference made from the code, and their checks."""
