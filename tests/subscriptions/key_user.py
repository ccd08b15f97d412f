"""Run in a project: print the active key, a signature by it, and the published keys.

The first argument is the time, in seconds since 1970, at which to ask for the key: so several processes do it at once.
"""

import json
import sys
import time

import django

if __name__ == "__main__":
    django.setup()
    from django_durable_streams import clock
    from django_durable_streams.subscriptions import signing_keys

    time.sleep(max(float(sys.argv[1]) - time.time(), 0))
    key = signing_keys.active_key("default")
    header = signing_keys.sign(b"{}", clock.now(), key)
    keys = json.loads(signing_keys.jwks("default"))
    print(json.dumps({"kid": key.kid, "header": header, "jwks": keys}))
