"""Checks of our own for Schemathesis."""

import os

import schemathesis
from schemathesis.generation import GenerationMode

# Codes of errors that a conforming request never has: the document says all that they depend on. Other errors depend on
# what is stored, on two fields together, or on rules that a schema cannot say.
SHAPE = {"malformed_json", "unknown_field", "invalid_type", "invalid_id", "invalid_length", "invalid_value", "required"}

# Requests that may conform to the document and be refused for their shape, and why. Every other operation is checked.
ELSEWHERE = {
    # Keys and values have a schema of their own, `/api/v1/tenant/settings/schema`, which depends on the server.
    ("PATCH", "/api/v1/tenant/settings"),
    ("PATCH", "/api/v1/security/policy"),
    # The value of a rule has the type of the flag, and its variants are those of the flag.
    ("POST", "/api/v1/admin/flags"),
    ("PUT", "/api/v1/admin/flags/{key}"),
    # How many values a condition has, and of which type, depends on its operator.
    ("POST", "/api/v1/admin/segments"),
    ("PUT", "/api/v1/admin/segments/{key}"),
    # Which data a CloudEvent may have depends on its content type.
    ("POST", "/api/v1/usage/events"),
    # The period has both ends or none.
    ("GET", "/api/v1/admin/billing/drift"),
}

# They compare the password of the user, and wrong ones lock the account. So another user than the one who logs in for the
# other requests sends them.
GUESSES = {"change_email", "change_password", "disable_mfa", "enroll_mfa"}


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """Replaces the token of requests that guess passwords."""
    header = case.headers.get("Authorization") if case.headers else None
    is_logged_in = header is not None and header.startswith("Bearer ey")
    if is_logged_in and case.operation.definition.raw.get("operationId") in GUESSES:
        case.headers["Authorization"] = f"Bearer {os.environ['GUESSER_TOKEN']}"


@schemathesis.check
def valid_request_is_accepted(ctx, response, case):
    """A request that conforms to the document is not refused for its shape."""
    meta = case.meta
    if meta is None or meta.generation.mode is not GenerationMode.POSITIVE:
        return None
    if response.status_code in (405, 406, 413, 415):
        raise AssertionError(f"refused with {response.status_code}: {response.text}")
    if response.status_code not in (400, 422) or (case.operation.method.upper(), case.operation.path) in ELSEWHERE:
        return None
    problem = response.json()
    # Problems of OFREP have members of their own.
    codes = {problem.get("code")} | {error["code"] for error in problem.get("errors", [])}
    if codes & SHAPE:
        raise AssertionError(f"refused with {response.status_code}: {response.text}")
    return None
