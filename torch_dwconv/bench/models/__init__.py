"""Whole models: how they are found (find.py), in which forms they run (forms.py), and how they are timed (cells.py)."""
