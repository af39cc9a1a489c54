//! JSON objects taken apart without parsing their values.
//!
//! What is forwarded or copied keeps the bytes its server wrote: numbers, escapes and the order of fields stay as they
//! are, and a large `spec` costs one scan instead of a tree.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of a JSON object in the order in which they were written; values are unparsed.
#[derive(Debug, Clone, Default)]
pub struct RawMap<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> RawMap<'a> {
    /// Takes a serialized object apart.
    ///
    /// # Errors
    /// Where `json` is not a well-formed JSON object.
    pub fn parse(json: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The value of the member of that name; of several, the last, as parsers of JSON agree on.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .rev()
            .find(|(key, _)| key == name)
            .map(|(_, value)| *value)
    }

    /// The object at that name, taken apart; `None` where it is missing or no object.
    #[must_use]
    pub fn object(&self, name: &str) -> Option<RawMap<'a>> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// The string at that name; `None` where it is missing or no string.
    #[must_use]
    pub fn string(&self, name: &str) -> Option<Cow<'a, str>> {
        #[derive(serde::Deserialize)]
        struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
        serde_json::from_str::<Text<'a>>(self.get(name)?.get())
            .ok()
            .map(|text| text.0)
    }

    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// The members in order; of several of one name the one that [`RawMap::get`] gives. Whoever writes an object anew from
    /// these leaves no reader in doubt, also one that takes the first or refuses to choose.
    pub fn unique(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        // Objects of Kubernetes have some dozen members, which are sooner compared than hashed.
        let few = self.0.len() <= 32;
        let hashed = self.0.iter().enumerate().skip(if few { self.0.len() } else { 0 });
        let last: HashMap<&str, usize> = hashed.map(|(at, (key, _))| (key.as_ref(), at)).collect();
        let is_last = move |at: usize, key: &str| {
            if few {
                self.0[at + 1..].iter().all(|(later, _)| later != key)
            } else {
                last.get(key) == Some(&at)
            }
        };
        let members = self.0.iter().enumerate();
        members.filter_map(move |(at, (key, value))| is_last(at, key).then_some((key.as_ref(), *value)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawMap<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = RawMap<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(serde::Deserialize)]
                struct Key<'k>(#[serde(borrow)] Cow<'k, str>);
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key.0, value));
                }
                Ok(RawMap(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Writes a JSON object member by member.
#[derive(Debug)]
pub struct RawObjectWriter {
    text: Vec<u8>,
}

impl Default for RawObjectWriter {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl RawObjectWriter {
    /// An object without members yet, with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut text = Vec::with_capacity(bytes);
        text.push(b'{');
        Self { text }
    }

    fn key(&mut self, name: &str) {
        if self.text.len() > 1 {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, name).expect("a string is written to memory");
        self.text.push(b':');
    }

    /// Adds a member whose value is JSON already.
    pub fn raw(&mut self, name: &str, json: &[u8]) {
        self.key(name);
        self.text.extend_from_slice(json);
    }

    /// Adds a member.
    pub fn member(&mut self, name: &str, value: &impl serde::Serialize) {
        self.key(name);
        serde_json::to_writer(&mut self.text, value).expect("values with string keys are written to memory");
    }

    /// How many bytes have been written: where the next member's comma or key starts.
    #[must_use]
    pub fn position(&self) -> usize {
        self.text.len()
    }

    /// Closes the object.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bytes() {
        let map = RawMap::parse(br#"{"b" : 1.0e0,"a":{"x":[ 1, 2 ]},"s":"\u0041","b":2}"#).unwrap();
        assert_eq!(map.iter().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "a", "s", "b"]);
        assert_eq!(map.get("b").unwrap().get(), "2");
        assert_eq!(map.object("a").unwrap().get("x").unwrap().get(), "[ 1, 2 ]");
        assert_eq!(map.string("s").unwrap(), "A");
        assert!(map.string("a").is_none() && map.object("s").is_none());
        assert!(RawMap::parse(b"[1]").is_err());
    }

    #[test]
    fn of_members_of_one_name_the_last_counts() {
        let kept = |json: &str| {
            let map = RawMap::parse(json.as_bytes()).unwrap();
            let kept = map.unique().map(|(key, value)| format!("{key}={}", value.get()));
            kept.collect::<Vec<_>>()
        };
        assert_eq!(kept(r#"{"a":1,"b":2,"\u0061":3}"#), ["b=2", "a=3"]);
        let many: Vec<String> = (0..100).map(|at| format!("\"k{}\":{at}", at % 50)).collect();
        let kept = kept(&format!("{{{}}}", many.join(",")));
        assert_eq!(
            (kept.len(), kept[0].as_str(), kept[49].as_str()),
            (50, "k0=50", "k49=99")
        );
    }

    #[test]
    fn members_are_written_in_order() {
        let mut writer = RawObjectWriter::default();
        writer.member("a\"b", &1);
        writer.raw("c", b"[ 2 ]");
        assert_eq!(writer.finish(), br#"{"a\"b":1,"c":[ 2 ]}"#);
        assert_eq!(RawObjectWriter::default().finish(), b"{}");
    }
}
