use serde_json::{Map, Value};

use crate::problem::Problem;

/// The parameters of a call: a tree with texts as leaves, as Stripe's form bodies and query strings describe
/// one.
#[derive(Debug, Clone, Default)]
pub struct Params(Map<String, Value>);

impl Params {
    /// Reads `a=1&b[c]=2&d[0][e]=3&f[]=4`. Elements of lists are kept under their number.
    pub fn form(text: &[u8]) -> Self {
        let mut root = Map::new();
        for (key, value) in url::form_urlencoded::parse(text) {
            let path: Vec<&str> = key.split('[').map(|part| part.trim_end_matches(']')).collect();
            insert(&mut root, &path, value.into_owned());
        }
        Self(root)
    }

    /// Reads a JSON object; numbers and booleans are taken as their texts.
    pub fn json(text: &[u8]) -> Option<Self> {
        match serde_json::from_slice(text).ok()? {
            Value::Object(map) => Some(Self(map)),
            _ => None,
        }
    }

    /// Those of a JSON object.
    pub const fn of(object: Map<String, Value>) -> Self {
        Self(object)
    }

    /// Both; what the second one says counts.
    pub fn merged(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// These and another one.
    pub fn with(mut self, name: &str, text: &str) -> Self {
        self.0.insert(name.to_owned(), Value::String(text.to_owned()));
        self
    }

    /// Those of these names.
    pub fn only(&self, names: &[&str]) -> Self {
        let kept = self.0.iter().filter(|(name, _)| names.contains(&name.as_str()));
        Self(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    /// Those below a name put in the place of another name.
    pub fn renamed(mut self, from: &str, to: &str) -> Self {
        if let Some(value) = self.0.remove(from) {
            self.0.insert(to.to_owned(), value);
        }
        self
    }

    pub fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub fn required(&self, name: &str) -> Result<String, Problem> {
        self.text(name)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| Problem::missing(name))
    }

    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Problem> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(Problem::invalid(
                    "parameter_invalid_integer",
                    name,
                    &format!("Invalid integer: {text}"),
                )),
            },
        }
    }

    pub fn truth(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(text) => Err(Problem::invalid(
                "parameter_invalid",
                name,
                &format!("Invalid boolean: {text}"),
            )),
        }
    }

    /// All of them, to compare.
    pub fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The parameters below a name; none when there are none.
    pub fn below(&self, name: &str) -> Option<Self> {
        match self.0.get(name)? {
            Value::Object(map) => Some(Self(map.clone())),
            _ => None,
        }
    }

    /// The elements of a list of trees, in the order of their numbers.
    pub fn list(&self, name: &str) -> Vec<Self> {
        let Some(below) = self.below(name) else {
            return Vec::new();
        };
        let mut elements: Vec<(u64, Self)> = below
            .0
            .into_iter()
            .filter_map(|(key, value)| match value {
                Value::Object(map) => Some((key.parse().unwrap_or(u64::MAX), Self(map))),
                _ => None,
            })
            .collect();
        elements.sort_by_key(|(number, _)| *number);
        elements.into_iter().map(|(_, element)| element).collect()
    }

    /// The elements of a list of texts.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let Some(below) = self.below(name) else {
            return self.text(name).into_iter().collect();
        };
        let mut keys: Vec<&String> = below.0.keys().collect();
        keys.sort_by_key(|key| key.parse::<u64>().unwrap_or(u64::MAX));
        keys.into_iter().filter_map(|key| below.text(key)).collect()
    }

    /// The texts below `metadata`.
    pub fn metadata(&self) -> Option<Map<String, Value>> {
        self.below("metadata").map(|below| below.0)
    }
}

fn insert(map: &mut Map<String, Value>, path: &[&str], value: String) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let key = if first.is_empty() {
        map.len().to_string()
    } else {
        (*first).to_owned()
    };
    if rest.is_empty() {
        map.insert(key, Value::String(value));
        return;
    }
    let below = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(below) = below {
        insert(below, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_names_become_a_tree() {
        let params = Params::form(b"a=1&b[c]=x%20y&d[1][e]=second&d[0][e]=first&f[]=u&f[]=v&truth=true");
        assert_eq!(params.text("a").unwrap(), "1");
        assert_eq!(params.below("b").unwrap().text("c").unwrap(), "x y");
        let elements: Vec<_> = params.list("d").iter().map(|it| it.text("e").unwrap()).collect();
        assert_eq!(elements, ["first", "second"]);
        assert_eq!(params.texts("f"), ["u", "v"]);
        assert_eq!(params.truth("truth").unwrap(), Some(true));
        assert!(params.number::<i64>("truth").is_err());
        assert!(params.required("nothing").is_err());
    }

    #[test]
    fn a_name_that_contradicts_itself_is_no_panic() {
        for text in ["a=1&a[b]=2", "a[b]=2&a=1", "[]=1", "[[[=", "a[b", "=", "&&&"] {
            let _ = Params::form(text.as_bytes());
        }
    }
}
