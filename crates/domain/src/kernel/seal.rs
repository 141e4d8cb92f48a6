use std::sync::Arc;

/// Seals what is stored but is nobody's to read in the store, backups included.
///
/// What was sealed for one place cannot be opened in another, so that nothing is gained by moving it there.
pub trait Seal: Send + Sync {
    /// The bytes, sealed for a place, whose name no other place has.
    fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8>;

    /// What was sealed for that place; `None` when it was not, or when the secret is no longer known.
    fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>>;

    /// Returns a keyed digest of bytes, for a place. Without the secret nobody can search for the bytes by trying.
    fn digest(&self, place: &str, plain: &[u8]) -> [u8; 32];

    /// Returns whether a digest for that place is one of these bytes, with the present secret or an earlier one.
    fn is_digest(&self, place: &str, plain: &[u8], digest: &[u8; 32]) -> bool;

    /// Whether it was sealed for that place with the present secret, so that earlier ones are not needed for it.
    fn is_current(&self, place: &str, sealed: &[u8]) -> bool;

    /// Creates a random data key and returns it sealed for that place.
    fn new_data_key(&self, place: &str) -> Vec<u8>;

    /// Returns the seal that works with a data key; `None` when the key was not sealed for that place, or when the secret is no
    /// longer known.
    fn with_data_key(&self, place: &str, sealed: &[u8]) -> Option<Arc<dyn Seal>>;
}
