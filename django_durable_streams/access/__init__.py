"""Who may do what with which stream: permissions, identities, CSRF rules and limits.

`guard.py` checks every request, in one place for all entry points. A project that allows everything to everybody has no
guard, and its requests pay for one comparison. The modules here do not know how a request is answered.
"""
