"""The ground every room stands on: names, quantities, selectors, times, errors and object accessors."""
