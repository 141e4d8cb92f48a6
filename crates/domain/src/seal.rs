/// Seals what is stored but is nobody's to read in the store, backups included.
///
/// What was sealed for one place cannot be opened in another, so that nothing is gained by moving it there.
pub trait Seal: Send + Sync {
    /// The bytes, sealed for a place, whose name no other place has.
    fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8>;

    /// What was sealed for that place; `None` when it was not, or when the secret is no longer known.
    fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>>;

    /// Whether it was sealed for that place with the present secret, so that earlier ones are not needed for it.
    fn is_current(&self, place: &str, sealed: &[u8]) -> bool;
}
