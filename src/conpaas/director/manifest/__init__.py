"""Manifests: a whole application written down, and the application made of it.

`schema` reads and checks the text, `fetch` gets the files it names, `deploy` is the operation that makes the application,
`export` writes a manifest of an application that exists.
"""
