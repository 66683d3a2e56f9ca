"""The web front-end: pages for a browser, made of what the Director's API and the managers say to the signed-in user.

It knows the client library and nothing behind it, keeps nothing but sessions, and has no rights of its own.
"""
