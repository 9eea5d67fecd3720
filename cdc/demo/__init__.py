"""The demo: a small shop kept busy, its pipeline on real servers, and the proof that it is equal.

shop.py      the shop's tables and first rows      load.py     what customers and staff do
compare.py   source and targets, row by row        view.py     the live terminal view
stage.py     servers, databases, pipeline file, the `cdc run` child: up and down again
"""

__all__: list[str] = []
