/// Reads an enum from its name and from nothing else. What serde derives would take `{"name": null}` too, and
/// would call a number in its place a syntax error.
macro_rules! deserialize_by_name {
    ($name:ident) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| {
                    let names = Self::ALL
                        .map(|one| format!("`{}`", one.as_str()))
                        .join(", ");
                    serde::de::Error::custom(format_args!("must be one of {names}"))
                })
            }
        }
    };
}
pub(crate) use deserialize_by_name;
