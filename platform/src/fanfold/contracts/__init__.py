"""What crosses a process boundary: ids, components, events, Valkey keys and blobs, HTTP shapes, the snapshot.

Imports nothing of Fanfold's own, so that the operator and every service can share it.
"""
