"""Calls the stand-in for Stripe with Stripe's own library. Arguments: its address, its key. Prints what it saw."""

import json
import sys

import stripe

stripe.api_base, stripe.api_key = sys.argv[1:3]
stripe.max_network_retries = 0

customer = stripe.Customer.create(
    name="Acme", email="acme@example.com", metadata={"tenant_id": "t1"}, idempotency_key="customer"
)
again = stripe.Customer.create(
    name="Acme", email="acme@example.com", metadata={"tenant_id": "t1"}, idempotency_key="customer"
)
meter = stripe.billing.Meter.create(
    display_name="Calls",
    event_name="calls",
    default_aggregation={"formula": "sum"},
    customer_mapping={"type": "by_id", "event_payload_key": "stripe_customer_id"},
    value_settings={"event_payload_key": "value"},
)
product = stripe.Product.create(name="Pro")
seats = stripe.Price.create(
    product=product.id, currency="usd", unit_amount=2900, recurring={"interval": "month"}, lookup_key="pro"
)
overage = stripe.Price.create(
    product=product.id,
    currency="usd",
    billing_scheme="tiered",
    tiers_mode="graduated",
    tiers=[{"up_to": 1000, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": "0.5"}],
    recurring={"interval": "month", "usage_type": "metered", "meter": meter.id},
)
subscription = stripe.Subscription.create(
    customer=customer.id,
    items=[{"price": seats.id, "quantity": 3}, {"price": overage.id}],
    trial_period_days=14,
    metadata={"tenant_id": "t1"},
)
event = stripe.billing.MeterEvent.create(
    event_name="calls", payload={"stripe_customer_id": customer.id, "value": "25"}, identifier="hour"
)
try:
    stripe.billing.MeterEvent.create(
        event_name="calls", payload={"stripe_customer_id": customer.id, "value": "25"}, identifier="hour"
    )
    duplicate = None
except stripe.InvalidRequestError as error:
    duplicate = error.code
try:
    stripe.Customer.create(name="Other", idempotency_key="customer")
    reused = None
except stripe.IdempotencyError as error:
    reused = error.http_status
try:
    stripe.Customer.retrieve("cus_none")
    missing = None
except stripe.InvalidRequestError as error:
    missing = error.code
names = [f"c{number}" for number in range(12)]
for name in names:
    stripe.Customer.create(name=name)
pages = stripe.Customer.list(limit=5).auto_paging_iter()
preview = stripe.Invoice.create_preview(subscription=subscription.id)
session = stripe.checkout.Session.create(
    mode="subscription",
    customer=customer.id,
    line_items=[{"price": seats.id, "quantity": 1}],
    success_url="https://example.com/ok",
)
print(
    json.dumps(
        {
            "same_customer": customer.id == again.id,
            "found_by_lookup_key": [it.id for it in stripe.Price.list(lookup_keys=["pro"]).data] == [seats.id],
            "status": subscription.status,
            "quantities": [getattr(item, "quantity", None) for item in subscription["items"].data],
            "value": event.payload["value"],
            "duplicate": duplicate,
            "reused": reused,
            "missing": missing,
            "pages": [it.name for it in pages] == names[::-1] + ["Acme"],
            "preview": preview.total,
            "checkout": session.status,
            "kinds": sorted({it.type for it in stripe.Event.list(limit=100).auto_paging_iter()}),
        }
    )
)
