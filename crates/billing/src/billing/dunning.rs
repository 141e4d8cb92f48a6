//! What would happen when to a tenant that does not pay, for operators to look at before it does.

use serde_json::json;
use tenantry_domain::billing::{DunningStep, DunningTerms};
use tenantry_domain::kernel::{Invalid, Time};
use tenantry_domain::operations::OperatorPermission;
use tenantry_tenancy::{OperatorCx, UseCaseError};

/// A failed payment that is made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Key of the plan that the payment is for.
    pub plan: String,
    /// When the payment fails.
    pub failed_at: Time,
    /// When it is paid after all, if it is.
    pub paid_at: Option<Time>,
}

/// What would happen when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simulation {
    /// How much patience there is.
    pub terms: DunningTerms,
    /// In the order of time.
    pub steps: Vec<(Time, DunningStep)>,
}

/// Errors of the simulation of dunning.
pub type SimulationError = UseCaseError;

/// The timetable of a failed payment. It changes nothing.
///
/// # Errors
/// [`SimulationError`].
pub async fn simulate(cx: &OperatorCx, failure: &Failure) -> Result<Simulation, SimulationError> {
    cx.require(OperatorPermission::ReadBilling)?;
    let plans = &cx.app().ports.plans;
    let Some(plan) = plans.current(&failure.plan) else {
        let detail = format!("must be one of {}", plans.names().join(", "));
        return Err(Invalid::one("/plan", "unknown_plan", detail).into());
    };
    if failure.paid_at.is_some_and(|paid_at| paid_at < failure.failed_at) {
        return Err(Invalid::one("/paid_at", "range", "must not be before failed_at").into());
    }
    let terms = DunningTerms {
        grace_days: plan.grace_days,
        delete_after_days: cx.app().policy.billing.delete_after_days,
    };
    let details = json!({"plan": failure.plan, "failed_at": failure.failed_at, "paid_at": failure.paid_at});
    cx.begin()
        .await?
        .commit(cx.record("dunning.simulated", None, details))
        .await?;
    Ok(Simulation {
        terms,
        steps: steps(&terms, failure),
    })
}

/// Everything that is due before the payment, and the payment.
fn steps(terms: &DunningTerms, failure: &Failure) -> Vec<(Time, DunningStep)> {
    let timetable = terms.timetable(failure.failed_at).into_iter();
    let Some(paid_at) = failure.paid_at else {
        return timetable.collect();
    };
    let before = timetable.take_while(|(at, _)| *at < paid_at);
    before.chain([(paid_at, DunningStep::Recovered)]).collect()
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;

    #[test]
    fn paying_ends_the_timetable() {
        let terms = DunningTerms {
            grace_days: 7,
            delete_after_days: None,
        };
        let failed_at: Time = "2026-03-01T12:00:00Z".parse().unwrap();
        let at = |days| failed_at + Duration::days(days);
        let failure = |paid_at| Failure {
            plan: "pro".into(),
            failed_at,
            paid_at,
        };
        let told = |paid_at| steps(&terms, &failure(paid_at));
        use DunningStep::{PaymentFailed, Recovered, Suspended, SuspensionAhead};
        assert_eq!(
            told(Some(at(5))),
            [
                (at(0), PaymentFailed),
                (at(4), SuspensionAhead),
                (at(5), Recovered)
            ]
        );
        assert_eq!(
            told(None),
            [
                (at(0), PaymentFailed),
                (at(4), SuspensionAhead),
                (at(7), Suspended)
            ]
        );
        assert_eq!(told(Some(at(0))), [(at(0), Recovered)]);
    }
}
