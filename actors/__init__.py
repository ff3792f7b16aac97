"""The waiting half of the house: shells that gather inputs, call a decision and carry out its answer."""
