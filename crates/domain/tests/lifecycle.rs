//! The state machine of tenants, whatever is asked of it and in which order.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use chrono::{DateTime, Duration};
use proptest::prelude::*;
use tenantry_domain::kernel::{TenantId, Time};
use tenantry_domain::tenant::{
    Capability, NewTenant, RowWork, Settings, StatusChange, Tenant, TenantStatus, Transition,
};

fn at(second: i64) -> Time {
    DateTime::UNIX_EPOCH + Duration::seconds(second)
}

fn tenant() -> Tenant {
    let new = NewTenant {
        name: "Acme".into(),
        slug: "acme".into(),
        subdomain: None,
        plan: None,
    };
    let settings = Settings {
        self_registration: false,
        timezone: "UTC".into(),
        locale: "en".into(),
    };
    let id = TenantId::from(uuid::Uuid::nil());
    Tenant::new(id, new, ("free".into(), 1), settings, at(0)).unwrap()
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Suspend,
    SuspendForPayment,
    Resume,
    ResumeAfterPayment,
    Delete,
    Restore,
    Purge,
    Finish,
}

fn event() -> impl Strategy<Value = Event> {
    prop::sample::select(vec![
        Event::Suspend,
        Event::SuspendForPayment,
        Event::Resume,
        Event::ResumeAfterPayment,
        Event::Delete,
        Event::Restore,
        Event::Purge,
        Event::Finish,
    ])
}

/// Whether it was accepted.
fn apply(tenant: &mut Tenant, event: Event, now: Time) -> bool {
    let change = StatusChange::of_system("a test");
    match event {
        Event::Suspend => tenant.suspend(change, now).is_ok(),
        Event::SuspendForPayment => tenant.suspend_for_payment(now),
        Event::Resume => tenant.resume(change, now).is_ok(),
        Event::ResumeAfterPayment => tenant.resume_after_payment(now),
        Event::Delete => tenant.delete(change, now, now + Duration::days(30)).is_ok(),
        Event::Restore => tenant.restore(change, now).is_ok(),
        Event::Purge => tenant.purge(change, now).is_ok(),
        Event::Finish => match tenant.row_work {
            Some(RowWork::Delete) => tenant.finish_deleting(),
            Some(RowWork::Restore) => tenant.finish_restoring(now),
            Some(RowWork::Purge) | None => false,
        },
    }
}

proptest! {
    #[test]
    fn state_work_and_times_always_fit(events in prop::collection::vec(event(), 0..40)) {
        let mut tenant = tenant();
        for (second, event) in (1..).zip(events) {
            let before = tenant.clone();
            let accepted = apply(&mut tenant, event, at(second));
            if !accepted {
                prop_assert_eq!(&tenant, &before, "what is refused changes nothing");
            }
            let deleted = matches!(tenant.status, TenantStatus::Deleted | TenantStatus::Purged);
            prop_assert_eq!(deleted, tenant.deleted_at.is_some());
            prop_assert_eq!(tenant.status == TenantStatus::Suspended, tenant.suspended_at.is_some() && !deleted);
            if let Some(work) = tenant.row_work {
                prop_assert_eq!(work.status(), tenant.status);
            }
            prop_assert_eq!(tenant.status == TenantStatus::Purged, tenant.row_work == Some(RowWork::Purge));
            prop_assert!(!(tenant.suspended_for_payment && tenant.suspended_at.is_none()));
            if before.status == TenantStatus::Purged {
                prop_assert_eq!(tenant.status, TenantStatus::Purged, "nothing leads back");
            }
            // A capability is only ever lost by a transition that takes it away.
            for capability in Capability::ALL {
                prop_assert!(!deleted || !tenant.status.allows(capability));
            }
        }
    }

    #[test]
    fn deletion_and_restoration_bring_the_same_tenant_back(events in prop::collection::vec(event(), 0..20)) {
        let mut tenant = tenant();
        for (second, event) in (1..).zip(events) {
            apply(&mut tenant, event, at(second));
        }
        prop_assume!(tenant.status.allows(Capability::Read));
        let before = tenant.clone();
        prop_assert!(apply(&mut tenant, Event::Delete, at(100)));
        prop_assert!(apply(&mut tenant, Event::Restore, at(101)));
        prop_assert!(!apply(&mut tenant, Event::Purge, at(102)), "not while it is being restored");
        prop_assert!(apply(&mut tenant, Event::Finish, at(103)));
        let same = Tenant {
            status_change: before.status_change.clone(),
            updated_at: before.updated_at,
            version: before.version,
            ..tenant.clone()
        };
        prop_assert_eq!(same, before);
    }
}

#[test]
fn every_state_and_transition_is_decided() {
    use Transition::{Delete, Purge, Restore, Resume, Suspend};
    let leads = |from: TenantStatus| {
        let all = Transition::ALL.into_iter();
        all.filter(|transition| from.after(*transition, false).is_some())
            .collect::<Vec<_>>()
    };
    // A restore that was given up leaves a tenant that never began; it can only be removed.
    assert_eq!(leads(TenantStatus::Provisioning), [Transition::Activate, Purge]);
    assert_eq!(leads(TenantStatus::Active), [Suspend, Resume, Delete]);
    assert_eq!(leads(TenantStatus::Suspended), [Suspend, Resume, Delete]);
    assert_eq!(leads(TenantStatus::Deleted), [Restore, Purge]);
    assert_eq!(leads(TenantStatus::Purged), []);
    // A suspended tenant keeps everything but writing, which the gate relies on.
    for capability in Capability::ALL {
        assert!(TenantStatus::Active.allows(capability));
        assert_eq!(
            TenantStatus::Suspended.allows(capability),
            capability != Capability::Write
        );
        assert!(!TenantStatus::Provisioning.allows(capability));
    }
}
