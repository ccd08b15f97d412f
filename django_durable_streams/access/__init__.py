"""Who may do what with which stream: permissions, callers, CSRF, limits.

`guard.py` judges every request, in one place for both doors. Where a project allows everything to everybody there is
no guard, and nothing is paid. Nothing here knows how a request is answered.
"""
