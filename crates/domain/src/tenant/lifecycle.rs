use super::status::{InvalidTransition, RowWork, StatusChange, TenantStatus, Transition, UNPAID};
use super::tenant::Tenant;
use crate::kernel::Time;

impl Tenant {
    /// Ends its provisioning: it is in use from now on.
    ///
    /// # Errors
    /// [`InvalidTransition`].
    pub fn activate(&mut self, change: StatusChange, now: Time) -> Result<(), InvalidTransition> {
        self.status = self.after(Transition::Activate)?;
        self.note(change, now);
        Ok(())
    }

    /// Makes it read-only. Whatever is owed, from here on paying does not lift the suspension.
    ///
    /// # Errors
    /// [`InvalidTransition`].
    pub fn suspend(&mut self, change: StatusChange, now: Time) -> Result<(), InvalidTransition> {
        self.status = self.after(Transition::Suspend)?;
        self.suspended_at.get_or_insert(now);
        self.suspended_for_payment = false;
        self.note(change, now);
        Ok(())
    }

    /// Lets it write again.
    ///
    /// # Errors
    /// [`InvalidTransition`].
    pub fn resume(&mut self, change: StatusChange, now: Time) -> Result<(), InvalidTransition> {
        self.status = self.after(Transition::Resume)?;
        self.suspended_at = None;
        self.suspended_for_payment = false;
        self.note(change, now);
        Ok(())
    }

    /// Makes it read-only because something is owed; whether that is a change. One that is suspended already is so for
    /// another reason, which stays.
    pub fn suspend_for_payment(&mut self, now: Time) -> bool {
        let changes = self.status == TenantStatus::Active;
        if changes && self.suspend(StatusChange::of_system(UNPAID), now).is_ok() {
            self.suspended_for_payment = true;
        }
        changes
    }

    /// Lets it write again because nothing is owed any more; whether that is a change.
    pub fn resume_after_payment(&mut self, now: Time) -> bool {
        let changes = self.status == TenantStatus::Suspended && self.suspended_for_payment;
        changes
            && self
                .resume(StatusChange::of_system("the invoices are paid"), now)
                .is_ok()
    }

    /// Deletes it: it is gone for everybody at once. Its rows are marked later, and erased after `purge_at`, unless it is
    /// restored before.
    ///
    /// # Errors
    /// [`InvalidTransition`].
    pub fn delete(
        &mut self,
        change: StatusChange,
        now: Time,
        purge_at: Time,
    ) -> Result<(), InvalidTransition> {
        self.status = self.after(Transition::Delete)?;
        self.deleted_at = Some(now);
        self.purge_at = Some(purge_at);
        self.row_work = Some(RowWork::Delete);
        self.row_counts.clear();
        self.note(change, now);
        Ok(())
    }

    /// Begins to restore a deleted tenant: it stays deleted until its rows are back.
    ///
    /// # Errors
    /// [`InvalidTransition`]. Asking twice is no error.
    pub fn restore(&mut self, change: StatusChange, now: Time) -> Result<(), InvalidTransition> {
        self.after(Transition::Restore)?;
        if self.row_work != Some(RowWork::Restore) {
            self.row_work = Some(RowWork::Restore);
            self.row_counts.clear();
            self.note(change, now);
        }
        Ok(())
    }

    /// Ends the restoration: the tenant has the state that it had before. Whether that is a change.
    pub fn finish_restoring(&mut self, now: Time) -> bool {
        let restored = self.row_work == Some(RowWork::Restore);
        if let (true, Ok(status)) = (restored, self.after(Transition::Restore)) {
            self.status = status;
            (self.deleted_at, self.purge_at, self.row_work) = (None, None, None);
            self.row_counts.clear();
            self.touch(now);
            return true;
        }
        false
    }

    /// Gives a restoration up that cannot go on: the rows that are back are marked again, and the tenant may be purged. Whether that is a
    /// change.
    pub fn give_restoring_up(&mut self, now: Time) -> bool {
        let restored = self.row_work == Some(RowWork::Restore);
        if restored {
            self.row_work = Some(RowWork::Delete);
            self.row_counts.clear();
            self.touch(now);
        }
        restored
    }

    /// Ends the marking of rows; whether that is a change.
    pub fn finish_deleting(&mut self) -> bool {
        let marked = self.row_work == Some(RowWork::Delete);
        if marked {
            self.row_work = None;
        }
        marked
    }

    /// Begins to erase a deleted tenant. Nothing leads back from here.
    ///
    /// # Errors
    /// [`InvalidTransition`], also while it is being restored. Asking twice is no error.
    pub fn purge(&mut self, change: StatusChange, now: Time) -> Result<(), InvalidTransition> {
        if self.row_work == Some(RowWork::Purge) {
            return Ok(());
        }
        if self.row_work == Some(RowWork::Restore) {
            return Err(self.cannot(Transition::Purge));
        }
        self.status = self.after(Transition::Purge)?;
        self.deleted_at.get_or_insert(now);
        self.row_work = Some(RowWork::Purge);
        self.row_counts.clear();
        self.note(change, now);
        Ok(())
    }

    fn after(&self, wanted: Transition) -> Result<TenantStatus, InvalidTransition> {
        let next = self.status.after(wanted, self.suspended_at.is_some());
        next.ok_or_else(|| self.cannot(wanted))
    }

    const fn cannot(&self, wanted: Transition) -> InvalidTransition {
        InvalidTransition {
            is: self.status,
            doing: self.row_work,
            wanted,
        }
    }

    fn note(&mut self, change: StatusChange, now: Time) {
        self.status_change = Some(change);
        self.touch(now);
    }
}
