use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

type Values = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

/// What crates above tenancy keep in memory for one application: one value of each type.
#[derive(Default)]
pub(crate) struct ProcessState(RwLock<Values>);

impl ProcessState {
    /// Returns the value of a type, which is created by the first call.
    pub(crate) fn get<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let key = TypeId::of::<T>();
        let values = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = values.get(&key).cloned();
        drop(values);
        let found = found.unwrap_or_else(|| {
            let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(values.entry(key).or_insert_with(|| Arc::new(T::default())))
        });
        // The key is the type of the value.
        found.downcast().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::*;

    #[test]
    fn one_value_of_each_type_is_kept() {
        let state = ProcessState::default();
        state.get::<AtomicU64>().store(7, Ordering::Relaxed);
        state.get::<AtomicU32>().store(3, Ordering::Relaxed);
        assert_eq!(state.get::<AtomicU64>().load(Ordering::Relaxed), 7);
        assert_eq!(state.get::<AtomicU32>().load(Ordering::Relaxed), 3);
        assert_eq!(
            ProcessState::default().get::<AtomicU64>().load(Ordering::Relaxed),
            0
        );
    }
}
