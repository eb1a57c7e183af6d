//! Finds the line of a value in a YAML text. Pure.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::fmt;

/// One step into a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a mapping.
    Key(&'static str),
    /// Into a sequence.
    Index(usize),
}

/// The line, counted from 1, on which the value at `path` begins; of its nearest parent where it is not there.
pub(super) fn line(text: &[u8], path: &[Step]) -> Option<usize> {
    (0..=path.len()).rev().find_map(|length| {
        let document = serde_norway::Deserializer::from_slice(text);
        // The error that `Walk` makes at the end of the path is what knows the line.
        let stopped = Walk(&path[..length]).deserialize(document).err()?;
        stopped.location().map(|location| location.line())
    })
}

struct Walk<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the path")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return arrived(self.0);
        };
        while let Some(key) = map.next_key::<String>()? {
            if key == *wanted {
                map.next_value_seed(Walk(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else {
            return arrived(self.0);
        };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Walk(rest)).map(|_| ())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        arrived(self.0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        arrived(self.0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        arrived(self.0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        arrived(self.0)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        arrived(self.0)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        arrived(self.0)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        arrived(self.0)
    }
}

/// An error at the end of the path; elsewhere the value has another form than the path and the walk is over.
fn arrived<E: Error>(rest: &[Step]) -> Result<(), E> {
    if rest.is_empty() { Err(E::custom("here")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{Index, Key};
    use proptest::prelude::*;

    #[test]
    fn values_are_found_by_their_path() {
        let text = b"# a comment\nserver: { key: a }\nlisteners:\n- port: 1\n  peer: west\n- peer: >\n    long\n  port: 2\n";
        for (path, expected) in [
            (&[Key("server"), Key("key")][..], 2),
            (&[Key("listeners"), Index(0), Key("port")], 4),
            (&[Key("listeners"), Index(0), Key("peer")], 5),
            (&[Key("listeners"), Index(1), Key("peer")], 6),
            (&[Key("listeners"), Index(1), Key("port")], 8),
            (&[Key("listeners"), Index(1)], 6),
            (&[Key("listeners"), Index(1), Key("target")], 6),
            (&[Key("listeners"), Index(7), Key("target")], 4),
            (&[Key("server"), Index(0)], 2),
            (&[Key("none")], 2),
        ] {
            assert_eq!(line(text, path), Some(expected), "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_line_or_none(text in prop::collection::vec(any::<u8>(), 0..200)) {
            line(&text, &[Key("listeners"), Index(1), Key("port")]);
        }
    }
}
