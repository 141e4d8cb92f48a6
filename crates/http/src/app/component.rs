use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, Value};

/// How long a component may take to say how it is. What is stuck is down, and whoever asked is answered all the same.
const PATIENCE: Duration = Duration::from_millis(600);

/// A part of the service that can be asked how it is.
#[async_trait]
pub trait Component: Send + Sync {
    /// How it is, in figures.
    async fn look(&self) -> Seen;
}

/// How a component is.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Whether it does what it is there for.
    pub state: ComponentState,
    /// Figures, by name.
    pub facts: Map<String, Value>,
}

/// Whether a component does what it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComponentState {
    /// It does.
    Ok,
    /// It does less than it should.
    Degraded,
    /// It does not.
    Down,
    /// It is not used.
    Off,
}

impl ComponentState {
    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Off => "off",
        }
    }
}

impl Seen {
    /// A component in a state, with figures that are a JSON object.
    pub fn new(state: ComponentState, facts: Value) -> Self {
        let facts = match facts {
            Value::Object(facts) => facts,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Map::new()
            }
        };
        Self { state, facts }
    }

    fn silent() -> Self {
        let reason = format!("no answer within {} ms", PATIENCE.as_millis());
        Self::new(ComponentState::Down, serde_json::json!({ "reason": reason }))
    }

    fn into_value(mut self) -> Value {
        self.facts.insert("status".into(), self.state.as_str().into());
        Value::Object(self.facts)
    }
}

/// The parts of a service, in the order in which they are told.
#[derive(Default)]
pub(crate) struct Components(Vec<Entry>);

struct Entry {
    name: &'static str,
    needed: bool,
    component: Arc<dyn Component>,
}

impl Components {
    pub fn add(&mut self, name: &'static str, needed: bool, component: Arc<dyn Component>) {
        self.0.push(Entry {
            name,
            needed,
            component,
        });
    }

    /// Asks all of them at once: whether everything that is needed is up, and how each is.
    pub async fn look(&self) -> (bool, Map<String, Value>) {
        let seen = join_all(self.0.iter().map(|entry| {
            let looking = tokio::time::timeout(PATIENCE, entry.component.look());
            async move { looking.await.unwrap_or_else(|_| Seen::silent()) }
        }));
        let seen = seen.await;
        let up = self
            .0
            .iter()
            .zip(&seen)
            .all(|(entry, seen)| !entry.needed || seen.state != ComponentState::Down);
        let told = self.0.iter().zip(seen);
        let told = told.map(|(entry, seen)| (entry.name.to_owned(), seen.into_value()));
        (up, told.collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Is(ComponentState);

    #[async_trait]
    impl Component for Is {
        async fn look(&self) -> Seen {
            Seen::new(self.0, json!({"figure": 7}))
        }
    }

    /// Is there when as many as belong together are asked at once.
    struct Together(Arc<tokio::sync::Barrier>);

    #[async_trait]
    impl Component for Together {
        async fn look(&self) -> Seen {
            self.0.wait().await;
            Seen::new(ComponentState::Ok, json!({}))
        }
    }

    struct Stuck;

    #[async_trait]
    impl Component for Stuck {
        async fn look(&self) -> Seen {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn what_is_stuck_is_down_and_the_others_are_told() {
        let mut components = Components::default();
        components.add("fine", true, Arc::new(Is(ComponentState::Ok)));
        components.add("a little", true, Arc::new(Is(ComponentState::Degraded)));
        components.add("stuck", false, Arc::new(Stuck));
        components.add("stuck too", false, Arc::new(Stuck));
        let both = Arc::new(tokio::sync::Barrier::new(2));
        components.add("one", true, Arc::new(Together(both.clone())));
        components.add("other", true, Arc::new(Together(both)));
        let (up, told) = components.look().await;
        assert!(up, "what is down is not needed");
        for name in ["one", "other"] {
            assert_eq!(told[name]["status"], "ok", "they are asked at once");
        }
        assert_eq!(told["fine"], json!({"status": "ok", "figure": 7}));
        assert_eq!(told["stuck"]["status"], "down");
        components.add("needed", true, Arc::new(Is(ComponentState::Down)));
        assert!(!components.look().await.0);
    }
}
