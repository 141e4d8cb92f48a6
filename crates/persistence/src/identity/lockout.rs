use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::identity::{AccountDigest, Guess, Lockout, Lockouts, Place};
use tenantry_domain::kernel::{StoreError, Time};

use crate::kernel::store::{PgStore, exactly_one};
use crate::kernel::tx::Lock;

/// How many of the oldest rows are deleted at once, when a tenant has too many.
const EVICTED: u64 = 100;

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "lockouts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub account: Vec<u8>,
        pub kind: String,
        pub place: String,
        pub failures: i32,
        pub last_at: DateTimeUtc,
        pub locked_until: Option<DateTimeUtc>,
        pub exempt_until: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Lockouts for PgStore {
    async fn find(
        &mut self,
        account: AccountDigest,
        guess: Guess,
        places: &[Place],
    ) -> Result<Vec<Lockout>, StoreError> {
        let names = places.iter().map(Place::to_string);
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::Account.eq(account.to_vec()))
            .filter(Column::Kind.eq(guess.as_str()))
            .filter(Column::Place.is_in(names));
        let rows = find.all().await?.into_iter();
        let lockouts = rows.map(|row| {
            let place = place_named(places, &row.place)?;
            lockout(state(&row), account, guess, place)
        });
        lockouts.collect()
    }

    async fn find_or_insert(&mut self, new: &Lockout) -> Result<Lockout, StoreError> {
        if let Some(row) = self.held_lockout(new).await? {
            return lockout(state(&row), new.account, new.guess, new.place);
        }
        if self.tx.find::<Entity>().count().await? >= Lockout::MOST {
            self.evict_lockouts().await?;
        }
        let row = ActiveModel {
            created_at: Set(new.last_at),
            account: Set(new.account.to_vec()),
            kind: Set(new.guess.as_str().to_owned()),
            place: Set(new.place.to_string()),
            ..changes(new)?
        };
        if self.tx.insert_unless_there(row).await? {
            return Ok(new.clone());
        }
        // Another transaction has stored it meanwhile.
        match self.held_lockout(new).await? {
            Some(row) => lockout(state(&row), new.account, new.guess, new.place),
            None => Ok(new.clone()),
        }
    }

    async fn update(&mut self, changed: &Lockout) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(changed)?);
        exactly_one(
            update
                .filter(row_of(changed.account, changed.guess, changed.place))
                .run()
                .await?,
        )
    }

    async fn delete(&mut self, account: AccountDigest, guess: Guess, place: Place) -> Result<(), StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(row_of(account, guess, place)).run().await?;
        Ok(())
    }

    async fn delete_of(&mut self, account: AccountDigest) -> Result<(), StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(Column::Account.eq(account.to_vec())).run().await?;
        Ok(())
    }

    async fn delete_before(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(Column::LastAt.lt(before)).run().await
    }
}

impl PgStore {
    async fn held_lockout(&mut self, of: &Lockout) -> Result<Option<Model>, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find.filter(row_of(of.account, of.guess, of.place));
        find.lock(Lock::Update).one().await
    }

    /// Deletes the oldest rows. Those that other transactions hold are left alone, so that none waits for another here.
    async fn evict_lockouts(&mut self) -> Result<(), StoreError> {
        let find = self
            .tx
            .find::<Entity>()
            .order_by_asc(Column::LastAt)
            .limit(EVICTED);
        let oldest = find.lock(Lock::UpdateSkipLocked).all().await?;
        let ids: Vec<_> = oldest.into_iter().map(|row| row.id).collect();
        self.tx
            .delete::<Entity>()
            .filter(Column::Id.is_in(ids))
            .run()
            .await?;
        Ok(())
    }
}

fn row_of(account: AccountDigest, guess: Guess, place: Place) -> Condition {
    Condition::all()
        .add(Column::Account.eq(account.to_vec()))
        .add(Column::Kind.eq(guess.as_str()))
        .add(Column::Place.eq(place.to_string()))
}

fn changes(lockout: &Lockout) -> Result<ActiveModel, StoreError> {
    let (failures, last_at, locked_until, exempt_until) = stored(lockout)?;
    Ok(ActiveModel {
        failures: Set(failures),
        last_at: Set(last_at),
        locked_until: Set(locked_until),
        exempt_until: Set(exempt_until),
        ..Default::default()
    })
}

fn state(row: &Model) -> State {
    (row.failures, row.last_at, row.locked_until, row.exempt_until)
}

/// What changes of a row, of users and of operators: failures, the time of the last one, and the ends of the wait and of the
/// exemption.
pub(crate) type State = (i32, Time, Option<Time>, Option<Time>);

/// What is stored of a lockout.
pub(crate) fn stored(lockout: &Lockout) -> Result<State, StoreError> {
    let failures = i32::try_from(lockout.failures).map_err(|_| unreadable("failures"))?;
    Ok((
        failures,
        lockout.last_at,
        lockout.locked_until,
        lockout.exempt_until,
    ))
}

/// The lockout of what is stored.
pub(crate) fn lockout(
    (failures, last_at, locked_until, exempt_until): State,
    account: AccountDigest,
    guess: Guess,
    place: Place,
) -> Result<Lockout, StoreError> {
    Ok(Lockout {
        account,
        guess,
        place,
        failures: u32::try_from(failures).map_err(|_| unreadable("failures"))?,
        last_at,
        locked_until,
        exempt_until,
    })
}

/// The place among those that were asked for that a row names.
pub(crate) fn place_named(places: &[Place], name: &str) -> Result<Place, StoreError> {
    let mut places = places.iter();
    let found = places.find(|place| place.to_string() == name);
    found.copied().ok_or_else(|| unreadable("place"))
}

fn unreadable(name: &str) -> StoreError {
    StoreError::Other(format!("{name} of a lockout is out of range"))
}
