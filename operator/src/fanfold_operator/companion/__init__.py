"""`kubectl fanfold`: shows platforms, rings, logs and load to people, and changes nothing but the pause annotation.

`access` and `follow` talk to the API server, `render` to the terminal; what is between them is pure.
"""
