//! How a pair of proxies is started: a YAML file with commands and configuration files for each side.
//!
//! `@word@` in it is replaced: `@listen_host@`, `@listen_port@`: where this side listens; `@next_host@`, `@next_port@`:
//! where it sends everything; `@certs@`: the folder of certificates; `@name@`: the called side's name in its
//! certificate; `@suite@`: the only TLS 1.3 cipher suite to offer; `@dir@`: the folder with this side's files.

use anyhow::{Context, Result, bail};
use linkspan_tests::tools;
use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The adapters that come with the benchmark; the first is what all are compared with.
const OWN: [&str; 8] = [
    include_str!("../peers/floor.yaml"),
    include_str!("../peers/linkspan.yaml"),
    include_str!("../peers/linkspan-http.yaml"),
    include_str!("../peers/haproxy-tcp.yaml"),
    include_str!("../peers/haproxy-http1.yaml"),
    include_str!("../peers/haproxy-http2.yaml"),
    include_str!("../peers/nginx-stream.yaml"),
    include_str!("../peers/stunnel.yaml"),
];
/// Names more adapter files, separated by colons.
pub(crate) const MORE: &str = "LINKSPAN_BENCH_PEERS";

/// A pair of proxies.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adapter {
    /// What it is called in results.
    pub(crate) name: String,
    /// The program that must be there; a path or a name on `PATH`.
    #[serde(default)]
    pub(crate) needs: Option<String>,
    /// Whether it understands HTTP and carries nothing else.
    #[serde(default)]
    pub(crate) http: bool,
    /// The protocol that the calling side names in TLS.
    #[serde(default)]
    pub(crate) alpn: Option<String>,
    /// The calling side.
    pub(crate) egress: Side,
    /// The called side.
    pub(crate) ingress: Side,
}

/// One side of a pair.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Side {
    /// Files it needs, by name.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// Its command line.
    pub(crate) command: Vec<String>,
}

/// What words are replaced by.
pub(crate) type Words = BTreeMap<&'static str, String>;

/// All adapters.
///
/// # Errors
/// When one that [`MORE`] names cannot be read.
pub(crate) fn all() -> Result<Vec<Adapter>> {
    let mut all = Vec::new();
    for text in OWN {
        all.push(serde_norway::from_str(text)?);
    }
    let more = std::env::var_os(MORE).unwrap_or_default();
    for path in std::env::split_paths(&more).filter(|p| !p.as_os_str().is_empty()) {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        all.push(serde_norway::from_str(&text).with_context(|| path.display().to_string())?);
    }
    Ok(all)
}

impl Adapter {
    /// The program it needs and this machine has not.
    pub(crate) fn missing(&self, words: &Words) -> Option<String> {
        let needs = replace(self.needs.as_deref()?, words).ok()?;
        let found =
            if needs.contains('/') { PathBuf::from(&needs).is_file() } else { tools::find(&needs).is_some() };
        (!found).then_some(needs)
    }
}

/// `text` with its words replaced.
///
/// # Errors
/// When there is a word that is not known.
pub(crate) fn replace(text: &str, words: &Words) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        let Some((word, tail)) = after.split_once('@') else { bail!("an @ has no partner in: {text}") };
        out.push_str(before);
        out.push_str(words.get(word).with_context(|| format!("no word is called @{word}@"))?);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_readable_and_their_words_known() {
        let names = ["bench", "gateway", "certs", "suite", "name", "identity", "account", "uid", "dir"];
        let places = ["listen_host", "listen_port", "next_host", "next_port", "more_listeners"];
        let words: Words = names.into_iter().chain(places).map(|w| (w, "x".to_owned())).collect();
        for adapter in all().unwrap() {
            for side in [&adapter.egress, &adapter.ingress] {
                for text in side.command.iter().chain(side.files.values()) {
                    let text = replace(text, &words).unwrap_or_else(|e| panic!("{}: {e}", adapter.name));
                    assert!(!text.contains('@'), "{text}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = replace("a @b@ c", &Words::new()).unwrap_err().to_string();
        assert!(error.contains("@b@"), "{error}");
    }
}
