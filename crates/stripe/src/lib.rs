//! Stripe as the payment provider.
