//! Personal data in entries, which can be erased although the entries are hashed.
//!
//! An entry's hash is over its erased form: in place of each text that tells about a person it has the SHA-256 of a salt and that
//! text. The salt is in the chain, another one for each entry. Who erases a person replaces the texts by these hashes and
//! the salt by zeros: the chain still verifies, and without the salt nobody can try out which address a hash is of.
//! People are named by their ids otherwise, which stay.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::audit::canonical::canonical;
use crate::kernel::hex;

/// Random bytes of one entry.
pub type Salt = [u8; 16];

/// The members of states and details whose values tell about a person.
const PERSONAL: [&str; 14] = [
    "address",
    "billing_email",
    "email",
    "former_email",
    "full_name",
    "ip",
    "mailbox",
    "new_email",
    "old_email",
    "phone",
    "recipient",
    "support_email",
    "user_agent",
    "user_name",
];

const ERASED: &str = "erased:";

/// A state with its personal data erased. What is erased already stays as it is.
pub fn erased(value: &Value, salt: &Salt) -> Value {
    match value {
        Value::Object(members) => {
            let erase = |name: &String, member: &Value| match member {
                Value::Null | Value::Bool(_) => member.clone(),
                Value::String(text) if PERSONAL.contains(&name.as_str()) => erased_text(text, salt).into(),
                Value::Number(_) | Value::Array(_) if PERSONAL.contains(&name.as_str()) => {
                    digest(&canonical(member), salt).into()
                }
                _ => erased(member, salt),
            };
            let members = members.iter();
            members
                .map(|(name, member)| (name.clone(), erase(name, member)))
                .collect()
        }
        Value::Array(members) => members.iter().map(|member| erased(member, salt)).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain.clone(),
    }
}

/// A personal text, erased. One that is erased already stays as it is.
pub fn erased_text(text: &str, salt: &Salt) -> String {
    if is_erased(text) {
        text.to_owned()
    } else {
        digest(text, salt)
    }
}

fn is_erased(text: &str) -> bool {
    let digits = text.strip_prefix(ERASED);
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn digest(text: &str, salt: &Salt) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(text).finalize();
    format!("{ERASED}{}", hex(&digest))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn personal_texts_are_erased_at_any_depth_and_once() {
        let state = json!({
            "email": "ada@example.com", "role": "admin", "ids": [1], "nested": [{"full_name": "Ada", "title": "x"}], "ip": null,
        });
        let gone = erased(&state, &[7; 16]);
        assert_eq!(
            (&gone["role"], &gone["ids"], &gone["ip"]),
            (&json!("admin"), &json!([1]), &Value::Null)
        );
        assert_eq!(gone["nested"][0]["title"], "x");
        let text = gone.to_string();
        assert!(!text.contains("ada@") && !text.contains("\"Ada\""), "{text}");
        assert_eq!(
            erased(&gone, &[0; 16]),
            gone,
            "no salt is needed for what is erased"
        );
        assert_ne!(erased(&state, &[8; 16]), gone, "another salt is another hash");
    }
}
