//! Accounts of people: users, sessions, tokens and passwords.
//!
//! May use: `kernel`.

mod password;
mod session;
mod token;
mod user;

pub use password::{
    CallerClass, CallerGroup, HashingCaller, Password, PasswordError, PasswordHash, PasswordHasher, Verified,
    normalized,
};
pub use session::{
    IssuedRefresh, LOGIN_ADDRESSES, PresentedRefresh, RefreshTokens, Rotation, Session, Sessions,
};
pub use token::{AccessClaims, AccessTokens, TokenError};
pub use user::{Email, NewUser, User, UserFilter, UserPatch, Users};
