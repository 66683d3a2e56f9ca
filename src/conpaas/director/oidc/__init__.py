"""Logins through OpenID Connect providers: `settings` reads the configuration, `provider` speaks the protocol, `logins` keeps the books.

The protocol's libraries are heavy, so `provider` imports them when somebody logs in that way, and never before.
"""
