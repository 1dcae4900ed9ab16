"""The operators: what loads them, checks them, differentiates them, and calls them by the shortest way."""

from . import native as native  # first: the library that it loads defines the operators
