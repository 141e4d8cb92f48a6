/// The plans on offer: what tenancy needs to know of billing.
pub trait PlanCatalogue: Send + Sync {
    /// Whether a plan of that name may be subscribed to.
    fn offers(&self, plan: &str) -> bool;

    /// The names of all plans, for messages.
    fn names(&self) -> Vec<String>;

    /// The plan of a tenant that names none.
    fn default_plan(&self) -> &str;

    /// What a plan says of a setting, where it says something.
    fn setting(&self, plan: &str, key: &str) -> Option<serde_json::Value>;
}
