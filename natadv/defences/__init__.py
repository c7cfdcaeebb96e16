"""From a model that a written word fools to one that it fools less, and what that costs."""
