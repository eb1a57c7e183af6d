//! The addresses of a Link's gateway, by what its names were answered with. Pure.

use linkspan_core::process::resolver::Answer;
use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::Instant;

/// Shortest and longest time until a name is looked up again; after a failure the shortest.
const LOOKUP: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// What names were answered with just now: addresses, or one sentence on why there are none.
pub type Answers = HashMap<String, Result<Answer, String>>;

/// All that is known of a Link's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// In the order of the endpoints, each once.
    pub addresses: Vec<SocketAddr>,
    /// Why a name has no answer now.
    pub problem: Option<String>,
    /// When names are to be looked up again; `None` where there are no names.
    pub again_at: Option<Instant>,
}

/// Remembers the last good answer of each name.
#[derive(Debug, Default)]
pub struct AddressBook(HashMap<String, Vec<IpAddr>>);

/// The names among `endpoints` that have to be looked up.
pub fn names(endpoints: &[(String, u16)]) -> BTreeSet<&str> {
    let names = endpoints.iter().map(|(host, _)| host.as_str());
    names.filter(|host| host.parse::<IpAddr>().is_err()).collect()
}

impl AddressBook {
    /// All addresses of `endpoints`; a name without a good one among `answers` keeps its last one.
    pub fn enter(&mut self, endpoints: &[(String, u16)], answers: &Answers, now: Instant) -> Found {
        let mut found = Found::default();
        let names = names(endpoints);
        self.0.retain(|name, _| names.contains(name.as_str()));
        for name in names {
            let again = match answers.get(name) {
                Some(Ok(answer)) => {
                    self.0.insert(name.to_owned(), answer.addresses.clone());
                    answer.ttl.clamp(LOOKUP.0, LOOKUP.1)
                }
                Some(Err(problem)) => {
                    found.problem.get_or_insert_with(|| problem.clone());
                    LOOKUP.0
                }
                None => LOOKUP.0,
            };
            found.again_at = Some(found.again_at.map_or(now + again, |earlier| earlier.min(now + again)));
        }
        for (host, port) in endpoints {
            let known = match host.parse() {
                Ok(ip) => vec![ip],
                Err(_) => self.0.get(host).cloned().unwrap_or_default(),
            };
            for ip in known {
                let address = SocketAddr::new(ip, *port);
                if !found.addresses.contains(&address) {
                    found.addresses.push(address);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<(String, u16)> {
        vec![("10.0.0.9".to_owned(), 4143), ("lb.example".to_owned(), 4143)]
    }

    fn answer(ips: &[&str], ttl: u64) -> Answers {
        let addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Answers::from([("lb.example".to_owned(), Ok(Answer { addresses, ttl: Duration::from_secs(ttl) }))])
    }

    fn texts(found: &Found) -> Vec<String> {
        found.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_addresses_of_both_families_are_used_for_as_long_as_the_answer_says() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        let found = book.enter(&endpoints(), &answer(&["10.0.0.1", "fd00::1", "10.0.0.9"], 30), now);
        assert_eq!(texts(&found), ["10.0.0.9:4143", "10.0.0.1:4143", "[fd00::1]:4143"]);
        assert_eq!((found.problem, found.again_at), (None, Some(now + Duration::from_secs(30))));
        let short = book.enter(&endpoints(), &answer(&["10.0.0.2"], 0), now);
        assert_eq!(texts(&short), ["10.0.0.9:4143", "10.0.0.2:4143"], "the new answer alone");
        assert_eq!(short.again_at, Some(now + LOOKUP.0));
        let numbers = [("10.0.0.9".to_owned(), 4143)];
        assert_eq!(book.enter(&numbers, &Answers::new(), now).again_at, None, "nothing to look up");
    }

    #[test]
    fn the_last_good_answer_is_kept_and_the_trouble_is_told() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        assert_eq!(texts(&book.enter(&endpoints(), &Answers::new(), now)), ["10.0.0.9:4143"]);
        book.enter(&endpoints(), &answer(&["10.0.0.1"], 300), now);
        let failed = Answers::from([("lb.example".to_owned(), Err("no answer".to_owned()))]);
        let found = book.enter(&endpoints(), &failed, now);
        assert_eq!(texts(&found), ["10.0.0.9:4143", "10.0.0.1:4143"]);
        assert_eq!((found.problem.as_deref(), found.again_at), (Some("no answer"), Some(now + LOOKUP.0)));
        book.enter(&[], &Answers::new(), now);
        assert_eq!(
            texts(&book.enter(&endpoints(), &failed, now)),
            ["10.0.0.9:4143"],
            "forgotten with its Link's name"
        );
    }
}
