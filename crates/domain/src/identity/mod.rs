//! Accounts of people: users, sessions, tokens, passwords, invitations, custom roles, API keys, second factors and passkeys.
//!
//! May use: `kernel`.

mod account_link;
mod account_notice;
mod address_rules;
mod api_key;
mod breached_passwords;
mod challenge;
mod custom_role;
mod invitation;
mod lockout;
mod mfa;
mod passkey;
mod password;
mod password_names;
mod person;
mod security_notice;
mod session;
mod signing_key;
mod token;
mod user;
mod workspace;

pub use account_link::{AccountLink, AccountLinks, IssuedLink, LinkPurpose, LinkTokens, PresentedLink};
pub use account_notice::{AccountNotice, RareNotice, RareNotices};
pub use address_rules::AddressRules;
pub use api_key::{
    AllowedNetwork, ApiKey, ApiKeyFormat, ApiKeyPatch, ApiKeys, ExpiryStage, FormerSecret, IssuedApiKey,
    KeyRefusal, NewApiKey, PresentedApiKey, SecretSource,
};
pub use breached_passwords::{BreachedPasswords, NotCompared};
pub use challenge::{
    ChallengeError, ChallengeOffer, ChallengePurpose, ChallengeVerifier, Challenges, SPENT_MINUTES,
    SpentChallenges,
};
pub use custom_role::{CustomRole, CustomRolePatch, CustomRoles, Narrowing, NewCustomRole, RoleName};
pub use invitation::{
    Invitation, InvitationMail, InvitationTokens, Invitations, IssuedInvitation, NewInvitation,
    PresentedInvitation,
};
pub use lockout::{AccountDigest, DelayRule, Guess, Lockout, Lockouts, Place};
pub use mfa::{
    DeviceToken, FACTOR_SETTLES_AFTER, MFA_CHALLENGE_FAILURES, MFA_CHALLENGE_SECONDS, MFA_CHALLENGES,
    MfaChallenge, MfaRequirement, OneTimeCodes, RECOVERY_CODES, RecoveryCode, SecondFactors,
    TOTP_STEP_SECONDS, TRUSTED_DEVICE_DAYS, TRUSTED_DEVICES, TotpFactor, TotpSecret, TotpWindow,
    TrustedDevice, without_separators,
};
pub use passkey::{
    ClonedPasskey, PASSKEY_CEREMONY_SECONDS, PASSKEYS, Passkey, PasskeyAssertion, PasskeyBackup,
    PasskeyCeremonies, PasskeyCeremony, PasskeyCredential, PasskeyOwner, PasskeyRefusal, Passkeys,
    UserHandle,
};
pub use password::{
    CallerClass, CallerGroup, HashingCaller, Password, PasswordError, PasswordHash, PasswordHasher,
    RefusedHash, Verified,
};
pub use password_names::normalized;
pub use person::{Erasure, Persons};
pub use security_notice::{BoundedNotices, SecurityNotice};
pub use session::{
    AuthMethods, IssuedRefresh, LOGIN_ADDRESSES, LiveAt, PresentedRefresh, RefreshTokens, Rotation, Session,
    SessionLifetime, Sessions,
};
pub use signing_key::{
    JWKS_MAX_AGE_SECONDS, KeyRing, LONGEST_PUBLICATION_SECONDS, OpenSigningKey, PUBLICATION_SECONDS,
    SHORTEST_PUBLICATION_SECONDS, Signature, SigningKeyEditing, SigningKeyRecord, SigningKeyState,
    SigningKeys,
};
pub use token::{AccessClaims, AccessTokens, LONGEST_TOKEN_SECONDS, TOKEN_LEEWAY_SECONDS, TokenError};
pub use user::{
    Email, MailboxEntry, MailboxProof, MailboxStanding, NewUser, RoleFilter, User, UserFilter, UserPatch,
    Users,
};
pub use workspace::{Requested, Workspace, WorkspaceMail, WorkspaceRequest, Workspaces};
