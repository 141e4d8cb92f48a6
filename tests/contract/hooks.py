"""Checks of our own for Schemathesis."""

import schemathesis
from schemathesis.generation import GenerationMode

# Errors that a request can have although it conforms to the document: they depend on what is stored.
STATE = {"not_found", "required", "idempotency_key_reused", "unknown_meter", "usage_too_old", "usage_in_future"}
CODES = {"invalid_cursor", "tenant_required"}


@schemathesis.check
def valid_request_is_accepted(ctx, response, case):
    """A request that conforms to the document is refused for the state of the server only."""
    meta = case.meta
    if meta is None or meta.generation.mode is not GenerationMode.POSITIVE:
        return None
    if response.status_code not in (400, 405, 406, 413, 415, 422):
        return None
    problem = response.json()
    codes = {problem["code"]} | {error["code"] for error in problem.get("errors", [])}
    if codes & (STATE | CODES):
        return None
    raise AssertionError(f"refused with {response.status_code}: {response.text}")
