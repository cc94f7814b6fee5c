"""Datasets over night: a plan, its items made anywhere, filtered into a project."""
