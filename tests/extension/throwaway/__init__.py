"""One of each kind, in a package that Headrace does not know of."""
