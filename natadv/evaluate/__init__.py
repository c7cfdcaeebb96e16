"""Where models, datasets, scenarios and tasks meet: units of work and the store of results."""
