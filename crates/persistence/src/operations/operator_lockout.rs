use async_trait::async_trait;
use sea_orm::sea_query::{LockType, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    QueryTrait as _,
};
use tenantry_domain::identity::{AccountDigest, Guess, Lockout, Lockouts, Place};
use tenantry_domain::kernel::{StoreError, Time};
use tenantry_domain::operations::OperatorGuesses;

use crate::identity::lockout::{State, lockout, place_named, stored};
use crate::kernel::store::exactly_one;
use crate::kernel::tx::PlatformTx;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "operator_lockouts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub account: Vec<u8>,
        #[sea_orm(primary_key, auto_increment = false)]
        pub kind: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub place: String,
        pub failures: i32,
        pub last_at: DateTimeUtc,
        pub locked_until: Option<DateTimeUtc>,
        pub exempt_until: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity, Model};

/// An open transaction of failed guesses at operators' accounts.
pub(crate) struct PgOperatorGuesses(pub(crate) PlatformTx);

#[async_trait]
impl OperatorGuesses for PgOperatorGuesses {
    fn lockouts(&mut self) -> &mut dyn Lockouts {
        &mut self.0
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.0.commit().await
    }
}

/// Those at accounts of operators, as the platform role; the runtime role has no grant on their table.
#[async_trait]
impl Lockouts for PlatformTx {
    async fn find(
        &mut self,
        account: AccountDigest,
        guess: Guess,
        places: &[Place],
    ) -> Result<Vec<Lockout>, StoreError> {
        let names = places.iter().map(Place::to_string);
        let find = Entity::find()
            .filter(Column::Account.eq(account.to_vec()))
            .filter(Column::Kind.eq(guess.as_str()))
            .filter(Column::Place.is_in(names));
        let rows = self.fetch::<Entity>(&find.into_query()).await?.into_iter();
        let lockouts = rows.map(|row| {
            let place = place_named(places, &row.place)?;
            lockout(state(&row), account, guess, place)
        });
        lockouts.collect()
    }

    async fn find_or_insert(&mut self, new: &Lockout) -> Result<Lockout, StoreError> {
        if let Some(row) = held(self, new).await? {
            return lockout(state(&row), new.account, new.guess, new.place);
        }
        // Each row makes place for itself, so that the table holds those of a day.
        let forgotten = new.last_at - Lockout::MEMORY;
        self.fetch_fixed(EVICT, [forgotten.into()]).await?;
        let row = ActiveModel {
            account: Set(new.account.to_vec()),
            kind: Set(new.guess.as_str().to_owned()),
            place: Set(new.place.to_string()),
            ..changes(new)?
        };
        let nothing = OnConflict::new().do_nothing().to_owned();
        let insert = sea_orm::Insert::one(row).on_conflict(nothing).into_query();
        if self.execute(&insert).await? == 1 {
            return Ok(new.clone());
        }
        // Another transaction has stored it meanwhile.
        match held(self, new).await? {
            Some(row) => lockout(state(&row), new.account, new.guess, new.place),
            None => Ok(new.clone()),
        }
    }

    async fn update(&mut self, changed: &Lockout) -> Result<(), StoreError> {
        let update = Entity::update_many().set(changes(changed)?);
        let update = update.filter(row_of(changed.account, changed.guess, changed.place));
        exactly_one(self.execute(&update.into_query()).await?)
    }

    async fn delete(&mut self, account: AccountDigest, guess: Guess, place: Place) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(row_of(account, guess, place));
        self.execute(&delete.into_query()).await.map(|_| ())
    }

    async fn delete_of(&mut self, account: AccountDigest) -> Result<(), StoreError> {
        let delete = Entity::delete_many().filter(Column::Account.eq(account.to_vec()));
        self.execute(&delete.into_query()).await.map(|_| ())
    }

    async fn delete_before(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = Entity::delete_many().filter(Column::LastAt.lt(before));
        self.execute(&delete.into_query()).await
    }
}

/// `$1` the time before which failures are forgotten. Deletes some rows that are, and the oldest beyond [`Lockout::MOST`].
/// Those that other transactions hold are left alone, so that none waits for another here.
const EVICT: &str = "\
DELETE FROM operator_lockouts WHERE (account, kind, place) IN (\
SELECT account, kind, place FROM operator_lockouts \
 WHERE last_at < $1 OR (SELECT count(*) FROM operator_lockouts) >= 10000 \
 ORDER BY last_at LIMIT 100 FOR UPDATE SKIP LOCKED)";

const _: () = assert!(Lockout::MOST == 10_000);

async fn held(tx: &mut PlatformTx, of: &Lockout) -> Result<Option<Model>, StoreError> {
    let find = Entity::find().filter(row_of(of.account, of.guess, of.place));
    let find = find.lock(LockType::Update).into_query();
    Ok(tx.fetch::<Entity>(&find).await?.into_iter().next())
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
