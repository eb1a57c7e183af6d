//! Which CAs this cluster is trusted by: the one that signs, and former ones for as long as what they signed lives. So a
//! CA that is renewed or exchanged breaks no connection. Pure.

use crate::issuer::ca::{LEAF_LIFETIME, TOLERATED_SKEW};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Most former CAs that are kept; of more, those that end first are dropped.
const MOST: usize = 8;

/// A CA that is, or was, this cluster's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownCa {
    /// Its certificate (PEM).
    certificate: String,
    /// Until when it is trusted; absent for the one that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trusted_until: Option<Timestamp>,
}

/// All CAs that are trusted, the one that signs first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaHistory(Vec<KnownCa>);

impl CaHistory {
    /// Reads what [`CaHistory::text`] wrote. What cannot be read is no history: then only the present CA is trusted.
    pub fn read(text: Option<&str>) -> Self {
        Self(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    /// This history at `now`, when the CA with the certificate `signing` (PEM) signs.
    #[must_use]
    pub fn with(self, signing: &str, now: Timestamp) -> Self {
        let longest = LEAF_LIFETIME + TOLERATED_SKEW;
        let former = self.0.into_iter().filter(|ca| ca.certificate != signing).map(|ca| {
            let end = ca.trusted_until.unwrap_or(now + longest).min(now + longest);
            (end, ca.certificate)
        });
        let mut former: Vec<(Timestamp, String)> = former.filter(|(end, _)| *end > now).collect();
        former.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        former.truncate(MOST);
        let former =
            former.into_iter().map(|(end, certificate)| KnownCa { certificate, trusted_until: Some(end) });
        let signing = KnownCa { certificate: signing.to_owned(), trusted_until: None };
        Self(std::iter::once(signing).chain(former).collect())
    }

    /// The certificates of all of them (PEM), the one that signs first.
    pub fn bundle(&self) -> String {
        self.0.iter().map(|ca| ca.certificate.as_str()).collect()
    }

    /// When the next of them is no longer trusted.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.0.iter().filter_map(|ca| ca.trusted_until).min()
    }

    /// As it is kept (JSON).
    pub fn text(&self) -> String {
        // Strings and times alone: there is nothing that could not be written.
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_772_000_000 + seconds).unwrap()
    }

    const DAY: i64 = 24 * 3600 + 300;

    #[test]
    fn a_former_ca_is_trusted_for_as_long_as_what_it_signed_lives() {
        let first = CaHistory::default().with("A\n", at(0));
        assert_eq!((first.bundle().as_str(), first.next_end()), ("A\n", None));
        let both = first.with("B\n", at(100));
        assert_eq!((both.bundle().as_str(), both.next_end()), ("B\nA\n", Some(at(100 + DAY))));
        let later = both.clone().with("B\n", at(99 + DAY));
        assert_eq!(later, both, "looking again prolongs nothing");
        let alone = both.clone().with("B\n", at(100 + DAY));
        assert_eq!((alone.bundle().as_str(), alone.next_end()), ("B\n", None));
        let back = both.with("A\n", at(200));
        assert_eq!(back.bundle(), "A\nB\n", "the former one signs again");
        assert_eq!(back.next_end(), Some(at(200 + DAY)));
    }

    #[test]
    fn no_text_is_no_history_and_none_is_trusted_for_longer() {
        for text in [None, Some(""), Some("{}"), Some("[7]")] {
            assert_eq!(CaHistory::read(text), CaHistory::default(), "{text:?}");
        }
        let forged = format!(r#"[{{"certificate":"X\n","trustedUntil":"{}"}}]"#, at(1_000_000_000));
        let history = CaHistory::read(Some(&forged)).with("A\n", at(0));
        assert_eq!((history.bundle().as_str(), history.next_end()), ("A\nX\n", Some(at(DAY))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cas in proptest::collection::vec((0u8..20, 0i64..200_000), 0..30)) {
            let mut history = CaHistory::default();
            let mut now = at(0);
            for (ca, wait) in cas {
                now += SignedDuration::from_secs(wait);
                let signing = format!("-----{ca}-----\n");
                history = history.with(&signing, now);
                prop_assert_eq!(&CaHistory::read(Some(&history.text())), &history);
                prop_assert!(history.bundle().starts_with(&signing));
                prop_assert!(history.0.len() <= MOST + 1);
                prop_assert!(history.next_end().is_none_or(|end| end > now && end <= now + SignedDuration::from_secs(DAY)));
                prop_assert_eq!(history.0.iter().filter(|ca| ca.trusted_until.is_none()).count(), 1);
            }
        }

        #[test]
        fn any_text_is_read(text in ".{0,200}") {
            let _ = CaHistory::read(Some(&text)).with("A\n", at(0));
        }
    }
}
