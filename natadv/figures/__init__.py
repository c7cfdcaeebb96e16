"""The figures and tables of the paper, drawn from the evidence of a run and from its models."""
