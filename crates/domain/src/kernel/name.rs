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

/// Declares an enum whose values have names on the wire and in the database: `Todo = "todo"`. It is written and read by serde
/// as its name. Further traits are derived by an attribute on the enum.
macro_rules! named_enum {
    ($(#[$about:meta])* $visibility:vis enum $name:ident {
        $($(#[$about_value:meta])* $value:ident = $text:literal,)+
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $visibility enum $name {
            $($(#[$about_value])* $value,)+
        }

        impl $name {
            /// Every value, in the order of their declaration.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$value),+];

            /// Returns the name on the wire and in the database.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }

            /// Returns the value of a name; `None` when no value has it.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$value),)+
                    _ => None,
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        $crate::kernel::name::deserialize_by_name!($name);
    };
}
pub(crate) use named_enum;
