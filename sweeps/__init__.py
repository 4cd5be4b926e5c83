"""Recipes and search spaces, one file per method. A recipe is a function; its name is its identifier for ever."""
