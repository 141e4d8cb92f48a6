"""Reads a webhook as Stripe's own library does. Arguments: the secret, the header. The body is read from the input."""

import sys

import stripe

secret, header = sys.argv[1:3]
body = sys.stdin.buffer.read()
try:
    event = stripe.Webhook.construct_event(body, header, secret, tolerance=None)
    print(event.type)
except stripe.SignatureVerificationError:
    print("forged")
