"""Headers of requests that may be forged, and of requests that cannot be."""

from base64 import b64encode

TOKEN = "x" * 32
CSRF = {"cookie": f"csrftoken={TOKEN}", "x-csrftoken": TOKEN}
EVIL = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
OURS = {"origin": "http://testserver", "sec-fetch-site": "same-origin"}
BEARER = {"authorization": "Bearer ann"}
BASIC = {"authorization": "Basic " + b64encode(b"ann:x").decode()}

COOKIE = {"cookie": "jwt=ann"}
COOKIE_AND_TOKEN = {"cookie": f"jwt=ann; csrftoken={TOKEN}", "x-csrftoken": TOKEN}
