"""Checks of our own for Schemathesis."""

import schemathesis
from schemathesis.generation import GenerationMode

# Codes of errors that a conforming request never has: the document says all that they depend on. Other errors depend on
# what is stored, on two fields together, or on rules that a schema cannot say.
SHAPE = {"malformed_json", "unknown_field", "invalid_type", "invalid_id", "invalid_length", "invalid_value", "required"}

# The tenant's settings have a schema of their own (`/api/v1/tenant/settings/schema`). Rules of flags are checked against the
# flag's variants and type. The period of a drift report has both ends or none.
ELSEWHERE = ("/api/v1/tenant/settings", "/api/v1/admin/flags", "/api/v1/admin/segments", "/api/v1/admin/billing/drift")


@schemathesis.check
def valid_request_is_accepted(ctx, response, case):
    """A request that conforms to the document is not refused for its shape."""
    meta = case.meta
    if meta is None or meta.generation.mode is not GenerationMode.POSITIVE:
        return None
    if response.status_code in (405, 406, 413, 415):
        raise AssertionError(f"refused with {response.status_code}: {response.text}")
    if response.status_code not in (400, 422) or case.path.startswith(ELSEWHERE):
        return None
    problem = response.json()
    codes = {problem["code"]} | {error["code"] for error in problem.get("errors", [])}
    if codes & SHAPE:
        raise AssertionError(f"refused with {response.status_code}: {response.text}")
    return None
